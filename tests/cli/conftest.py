"""The world that the command line's tests run in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_world import World


@pytest.fixture
def world(tiny_catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    shutil.copytree(tiny_catalog.parent, tmp_path / "catalog")
    earlier = tmp_path / "data" / "merge_plans" / "merge_request=earlier"
    earlier.mkdir(parents=True)
    (earlier / "part.parquet").write_bytes(b"an earlier result")
    monkeypatch.chdir(tmp_path)  # relative defaults must not reach the checkout's own demo
    return World(tmp_path)
