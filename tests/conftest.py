"""Fixtures that several test packages share."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import S3Server


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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A local S3 server for the whole session; every test has a bucket of its own."""
    pytest.importorskip("moto", reason="moto is not installed: pip install '.[test-s3]'")
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install '.[test-s3]'")
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The S3 server as this test's endpoint, with a cache of its own and a new bucket (`S3Server.bucket`)."""
    from s3fs import S3FileSystem

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SIMMERGE_CACHE", str(tmp_path / "cache"))
    s3_server.make_bucket()
    s3_server.counted()
    S3FileSystem.clear_instance_cache()  # of another endpoint
    yield s3_server
    s3_server.before = None
    S3FileSystem.clear_instance_cache()
