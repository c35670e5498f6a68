"""The services of docker/compose.yaml, started as the file says, on this machine: they work, and survive each other."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cluster_postgres
import polars as pl
import pytest
from cluster_compose import Deployment
from cluster_graphql import Interface, statuses, wait_for
from cluster_postgres import PASSWORD, PostgresServer
from cluster_processes import Processes
from cluster_steps import completes, put_catalog

from simmerge_core.catalog import load_catalog
from simmerge_core.tables import CHECKPOINTS, WEIGHT_GRAM, DataRoot

pytestmark = pytest.mark.cluster
Timed = dict[str, dict[str, float]]


def since(moment: float) -> float:
    """Seconds."""
    return round(time.monotonic() - moment, 1)


@pytest.fixture(scope="module")
def deployment(
    postgres: PostgresServer, processes: Processes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Everything but Ray, healthy; only the catalog's sensor acts by itself."""
    postgres.create_database("dagster")
    found = Deployment(
        processes,
        tmp_path_factory.mktemp("compose"),
        postgres_port=postgres.port,
        variables={"DAGSTER_PG_PASSWORD": PASSWORD, "SIMMERGE_WORKERS": "1"},
    )
    try:
        found.up("webserver")
        Interface(found.ports["3000"]).stop_sensor("automation")
        found.up("daemon")
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def interface(deployment: Deployment) -> Interface:
    return Interface(deployment.ports["3000"])


@pytest.fixture(scope="module")
def ids(deployment: Deployment, interface: Interface, tiny_catalog: Path) -> list[str]:
    """The ids of a catalog that was put into the volume and found by the sensor."""
    catalog = load_catalog(put_catalog(deployment, tiny_catalog))
    wanted = [catalog.base.id, *catalog.checkpoint_ids]
    wait_for(
        lambda: interface.partitions("checkpoints")["numPartitions"],
        lambda number: number == len(wanted),
        lambda: deployment.processes.told("daemon"),
    )
    return wanted


@pytest.fixture(scope="module")
def checked(deployment: Deployment, interface: Interface, ids: list[str]) -> list[str]:
    """The same, when the first asset has been materialized by a backfill."""
    completes(deployment, interface, interface.launch("checkpoints"))
    return ids


def test_a_backfill_writes_the_tables_of_a_new_catalog(
    deployment: Deployment, interface: Interface, checked: list[str]
) -> None:
    root = DataRoot(deployment.volume("data"))
    assert set(root.scan(CHECKPOINTS).select("checkpoint").collect()["checkpoint"]) == set(checked)
    counts = {"numPartitions": len(checked), "numMaterialized": len(checked), "numFailed": 0}
    assert interface.partitions("checkpoints") == counts
    logs = list(deployment.volume("dagster").rglob("*.err"))
    assert logs, "what a run writes is on the volume that the UI reads"


def test_every_service_is_healthy_by_its_own_check(deployment: Deployment) -> None:
    assert [name for name in ("code", "webserver", "daemon") if not deployment.healthy(name)] == []


def test_the_database_is_healthy_by_its_own_check(deployment: Deployment) -> None:
    programs = cluster_postgres.programs()
    assert programs is not None
    if not (programs / "pg_isready").is_file():
        pytest.skip("pg_isready is not installed")
    command = deployment.services["postgres"].healthcheck
    environment = {**os.environ, "PATH": str(programs), "PGPORT": deployment.ports["5432"]}
    assert subprocess.run([programs / command[0], *command[1:]], env=environment, check=False).returncode == 0


def test_two_backfills_run_at_once(deployment: Deployment, interface: Interface, checked: list[str]) -> None:
    both = [interface.launch("weight_gram"), interface.launch("probe_activations")]
    for backfill in both:
        completes(deployment, interface, backfill)
    found = DataRoot(deployment.volume("data")).scan(WEIGHT_GRAM).select(pl.col("checkpoint").unique()).collect()
    assert set(found["checkpoint"]) == set(checked)
    probes = interface.partitions("probe_activations")
    assert probes["numMaterialized"] == probes["numPartitions"] == len(checked)


def test_a_killed_daemon_is_started_again_and_goes_on(
    deployment: Deployment, interface: Interface, checked: list[str], timed: Timed
) -> None:
    before = interface.launch("checkpoints")
    deployment.processes.kill("daemon")
    assert interface.status(before) == "REQUESTED"  # nobody else does a daemon's work
    started = time.monotonic()
    deployment.start("daemon")
    completes(deployment, interface, before)
    timed["compose: daemon killed"] = {"backfill done after the start": since(started)}
    started = time.monotonic()
    completes(deployment, interface, interface.launch("checkpoints"))
    timed["compose: no fault"] = {"the same backfill": since(started)}


def test_runs_of_a_killed_code_server_are_started_once_more(
    deployment: Deployment, interface: Interface, checked: list[str], timed: Timed
) -> None:
    backfill = interface.launch("probe_activations")
    wait_for(lambda: statuses(interface.runs(backfill)), lambda found: found == ["STARTED"])
    deployment.processes.kill("code")
    killed = time.monotonic()
    deployment.start("code")
    deployment.wait_until_healthy("code")
    healthy = since(killed)
    wait_for(lambda: len(interface.runs(backfill)), lambda runs: runs == 2)
    again = since(killed)
    completes(deployment, interface, backfill)
    timed["compose: code server killed"] = {
        "healthy": healthy,
        "run started again": again,
        "backfill done": since(killed),
    }
    assert statuses(interface.runs(backfill)) == ["SUCCESS", "FAILURE"]


def test_a_code_server_that_is_stopped_waits_for_its_runs(
    deployment: Deployment, interface: Interface, checked: list[str]
) -> None:
    backfill = interface.launch("checkpoints")
    wait_for(lambda: statuses(interface.runs(backfill)), lambda found: found == ["STARTED"])
    deployment.processes.stop("code")
    assert statuses(interface.runs(backfill)) == ["SUCCESS"]
    deployment.start("code")
    deployment.wait_until_healthy("code")
    completes(deployment, interface, backfill)


def test_services_outlive_the_database(
    deployment: Deployment, interface: Interface, postgres: PostgresServer, checked: list[str], timed: Timed
) -> None:
    postgres.kill()
    killed = time.monotonic()
    postgres.start()
    wait_for(interface.answers, bool)  # the first question meets a connection that is no more
    answers = since(killed)
    completes(deployment, interface, interface.launch("checkpoints"))
    timed["compose: database killed"] = {"UI answers": answers, "next backfill done": since(killed)}


def test_no_history_and_no_result_is_in_a_container(deployment: Deployment, checked: list[str]) -> None:
    for name in ("code", "webserver", "daemon"):
        home = {file.name for file in (deployment.image(name) / "opt/dagster").iterdir()}
        # Dagster makes the others for its telemetry, even where that is off.
        assert home <= {"dagster.yaml", "workspace.yaml", "logs", ".logs_queue", ".nux"}, name
        elsewhere = {file.name for file in deployment.image(name).iterdir()}
        assert elsewhere == {"opt"}, name  # a service that does not mount a volume has nothing to write there
