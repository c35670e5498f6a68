"""One Ray cluster for the session, a small catalog, and what one process computes from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import torch
import yaml
from cluster_deployment import LABELS, SIGNALS, Deployment, base_environment
from cluster_ray import RayCluster

from simmerge_pipeline.materialize import materialize_all


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A head and a worker; the worker may be another one after a test."""
    # Ray's sockets stand in its folder, and the path of a socket has at most 107 characters.
    folder = tmp_path_factory.mktemp("r")
    started = RayCluster(folder, base_environment())
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def four_experts(tiny_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny catalog with four of its experts and one of its tasks; read-only by agreement."""
    folder = tmp_path_factory.mktemp("four") / "catalog"
    shutil.copytree(tiny_catalog.parent, folder)
    path = folder / tiny_catalog.name
    content = yaml.safe_load(path.read_text())
    fewer = {"checkpoints": content["checkpoints"][:4], "tasks": content["tasks"][:1], "merge_requests": []}
    path.write_text(yaml.safe_dump({**content, **fewer}, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def in_one_process(four_experts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root of what Dagster computes in this process, without any cluster; read-only by agreement."""
    torch.set_num_threads(1)
    data = tmp_path_factory.mktemp("one-process")
    with dg.DagsterInstance.ephemeral() as instance:
        done = materialize_all(
            catalog=four_experts, data_root=data, instance=instance, workers=1, assets=[*SIGNALS, *LABELS]
        )
    assert done.ok, done.failed
    return data


@pytest.fixture
def deploy(
    cluster: RayCluster, four_experts: Path, in_one_process: Path, tmp_path: Path
) -> Iterator[Callable[..., Deployment]]:
    """Make deployments, whose daemons end with the test; with the signals in place if asked for."""
    made: list[Deployment] = []

    def make(*, launcher: str = "ray", gated: bool = False, signals: bool = True) -> Deployment:
        new = Deployment(tmp_path / str(len(made)), four_experts, cluster, launcher=launcher, gated=gated)
        for table in SIGNALS if signals else ():
            shutil.copytree(in_one_process / table, new.data / table)
        made.append(new)
        return new

    yield make
    for deployment in made:
        deployment.kill_daemon()
        deployment.stop_runs()
