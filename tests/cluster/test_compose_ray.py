"""The profile `ray` of docker/compose.yaml: a head, a worker that has the GPU, and the steps as jobs of theirs."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from cluster_compose import Deployment
from cluster_graphql import Interface, wait_for
from cluster_postgres import PASSWORD, PostgresServer
from cluster_processes import Processes
from cluster_steps import completes, put_catalog

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("ray", "dagster_ray")),
        reason="Ray is not installed: pip install -e '.[ray]'",
    ),
]
# Ray counts the GPUs that it is told of; there need not be one.
VARIABLES = {"DAGSTER_PG_PASSWORD": PASSWORD, "SIMMERGE_EXECUTOR": "ray", "SIMMERGE_RAY_DEVICE": "cpu"}


@pytest.fixture(scope="module")
def deployment(
    postgres: PostgresServer, processes: Processes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Head and worker."""
    postgres.create_database("dagster")
    folder = tmp_path_factory.mktemp("compose-ray")
    found = Deployment(processes, folder, postgres_port=postgres.port, variables=VARIABLES)
    try:
        found.up("ray-worker")
        yield found
    finally:
        found.close()


def test_head_and_worker_are_healthy_by_their_own_checks(deployment: Deployment) -> None:
    assert deployment.healthy("ray-head")
    assert deployment.healthy("ray-worker")


@pytest.mark.skipif(
    importlib.util.find_spec("simmerge_pipeline.executors") is None, reason="the pipeline has no executor for Ray"
)
def test_steps_of_a_backfill_are_jobs_of_the_cluster(deployment: Deployment, tiny_catalog: Path) -> None:
    put_catalog(deployment, tiny_catalog)
    deployment.up("webserver")
    interface = Interface(deployment.ports["3000"])
    interface.stop_sensor("automation")
    deployment.up("daemon")
    wait_for(lambda: interface.partitions("checkpoints")["numPartitions"], lambda number: number == 4)
    for asset in ("checkpoints", "probe_activations"):
        completes(deployment, interface, interface.launch(asset))
        counts = interface.partitions(asset)
        assert counts["numMaterialized"] == counts["numPartitions"] == 4
    # A job ends a little after its step.
    found = wait_for(lambda: jobs(deployment), lambda jobs: all(job["status"] == "SUCCEEDED" for job in jobs))
    done = {job["metadata"]["dagster/op"]: job for job in found}
    assert done.keys() == {"checkpoints", "probe_activations"}
    # The head has no GPU, so what wants one has been on the worker.
    heads = {node["nodeId"] for node in nodes(deployment) if node["isHeadNode"]}
    assert done["probe_activations"]["driver_node_id"] not in heads


def jobs(deployment: Deployment) -> list[dict[str, Any]]:
    with urlopen(f"http://127.0.0.1:{deployment.ports['8265']}/api/jobs/", timeout=60) as answer:
        return list(json.load(answer))


def nodes(deployment: Deployment) -> list[dict[str, Any]]:
    with urlopen(f"http://127.0.0.1:{deployment.ports['8265']}/nodes?view=summary", timeout=60) as answer:
        return [
            {"nodeId": node["raylet"]["nodeId"], "isHeadNode": node["raylet"]["isHeadNode"]}
            for node in json.load(answer)["data"]["summary"]
        ]
