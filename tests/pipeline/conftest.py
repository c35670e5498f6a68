"""The whole graph on the tiny demo catalog, once per session, and a small catalog that a test may change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import torch
import yaml
from pipeline_world import World

from simmerge_pipeline.materialize import Summary


@pytest.fixture(scope="session")
def finished(tiny_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Summary]]:
    """Everything materialized on the tiny catalog; read-only by agreement."""
    torch.set_num_threads(1)
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(tiny_catalog, tmp_path_factory.mktemp("finished"), instance)
        yield world, world.materialize()


@pytest.fixture
def small(tiny_catalog: Path, tmp_path: Path) -> Iterator[World]:
    """A copy of the tiny catalog with three experts and one task, nothing materialized."""
    torch.set_num_threads(1)
    shutil.copytree(tiny_catalog.parent, tmp_path / "catalog")
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(tmp_path / "catalog" / tiny_catalog.name, tmp_path / "data", instance)
        content = yaml.safe_load(world.catalog_path.read_text())
        world.declare(checkpoints=content["checkpoints"][:3], tasks=content["tasks"][:1], merge_requests=[])
        yield world
