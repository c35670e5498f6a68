"""Fixtures that several test packages share."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest


def _demo_sources() -> str:
    """Hash of everything a demo checkpoint's bytes depend on, short enough for a folder's name."""
    import torch

    import simmerge_core.demo

    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted(Path(simmerge_core.demo.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def tiny_catalog(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """Path of the catalog.yaml of a `tiny` demo catalog, once per test session; read-only by agreement.

    Training it takes seconds, so the next session starts from a copy kept in pytest's cache, as long as the demo's
    sources are the same. Tests only ever see the session's own copy; `pytest --cache-clear` trains anew.
    """
    from simmerge_core.demo import build
    from simmerge_core.errors import CatalogError

    out_dir = tmp_path_factory.mktemp("tiny")
    cache = getattr(pytestconfig, "cache", None)
    if cache is None:
        return build(out_dir, preset="tiny", workers=1)
    kept = cache.mkdir(f"tiny-catalog-{_demo_sources()}")
    try:
        build(kept, preset="tiny", workers=1)
    except CatalogError:  # another test session is building it
        return build(out_dir, preset="tiny", workers=1)
    shutil.copytree(kept, out_dir, dirs_exist_ok=True)
    return build(out_dir, preset="tiny", workers=1)  # trains nothing; writes the lm-eval files for the new place
