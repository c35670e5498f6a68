"""The tiny demo's whole graph on an object store: the same tables as in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import torch
from pipeline_world import World
from polars.testing import assert_frame_equal
from s3_server import S3Server

from simmerge_core.tables import TABLES
from simmerge_pipeline.materialize import Summary

pytestmark = [pytest.mark.s3, pytest.mark.integration]


@pytest.fixture(scope="module")
def stored(
    tiny_catalog: Path, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, Summary]]:
    """Everything materialized on the tiny catalog in a bucket; read-only by agreement."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        patch.setenv("SIMMERGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        s3_server.make_bucket()
        world = World(tiny_catalog, s3_server.root, instance)
        yield world, world.materialize()


def test_everything_is_computed(stored: tuple[World, Summary], finished: tuple[World, Summary]) -> None:
    _, summary = stored
    assert summary.failed == {}
    computed = {a.name: a.computed for a in summary.assets}
    assert computed == {a.name: a.computed for a in finished[1].assets}
    assert all(computed[name] for name in computed if name != "active_labels")


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_same_as_in_a_folder(
    stored: tuple[World, Summary], finished: tuple[World, Summary], name: str
) -> None:
    there, here = (world.root.scan(TABLES[name]).collect() for world, _ in (stored, finished))
    assert_frame_equal(there, here)
