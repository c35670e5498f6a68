"""Dagster's history in a real PostgreSQL server: nothing of the SQLite log, and as many writers as there are runs."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest
from cluster_dockerfile import PROJECT
from cluster_postgres import PostgresServer
from cluster_processes import Processes

from simmerge_core.catalog import load_catalog
from simmerge_core.tables import CHECKPOINTS, DataRoot
from simmerge_pipeline.event_log import BatchedSqliteEventLog, persistent_instance
from simmerge_pipeline.materialize import materialize_all

pytestmark = pytest.mark.cluster

WRITTEN = dg.DagsterEventType.ASSET_MATERIALIZATION
SIGNALS = ("checkpoints", "probe_activations", "weight_gram", "functional_similarity", "pairwise_features")


def home(folder: Path, settings: dict[str, str], patch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME with the settings of the deployment, whose storage a database of the server is."""
    for name, value in {**settings, "DAGSTER_FILES": str(folder / "files")}.items():
        patch.setenv(name, value)
    place = folder / "dagster"
    place.mkdir()
    shutil.copy(PROJECT / "docker/dagster.yaml", place)
    return place


def test_everything_is_materialized_into_postgres_and_stays_current(
    postgres: PostgresServer, tiny_catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.create_database("whole")
    place = home(tmp_path, postgres.settings("whole"), monkeypatch)
    given = {"catalog": tiny_catalog, "data_root": tmp_path / "data", "dagster_home": place, "workers": 1}
    summary = materialize_all(**given, assets=SIGNALS)  # type: ignore[arg-type]
    assert summary.ok, summary.failed
    assert all(a.computed == a.partitions > 0 for a in summary.assets)

    with persistent_instance(place) as instance:
        log = instance.event_log_storage
        assert type(log).__name__ == "PostgresEventLogStorage"
        assert not isinstance(log, BatchedSqliteEventLog)
        for asset in summary.assets:
            key = dg.AssetKey(asset.name)
            assert len(instance.get_materialized_partitions(key)) == asset.partitions
            events = Counter(r.partition_key for r in instance.fetch_materializations(key, limit=1000).records)
            assert set(events.values()) == {1}
            assert len(events) == asset.partitions
        runs = instance.get_runs()
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        assert len(runs) == sum(a.runs for a in summary.assets)
    assert [file.name for file in place.iterdir()] == ["dagster.yaml"]  # no SQLite beside it, nor anything else

    again = materialize_all(**given, assets=SIGNALS)  # type: ignore[arg-type]
    assert [(a.computed, a.current) for a in again.assets] == [(0, a.partitions) for a in summary.assets]


def test_two_run_workers_write_at_once(
    postgres: PostgresServer,
    processes: Processes,
    tiny_catalog: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    postgres.create_database("two_workers")
    place = home(tmp_path, postgres.settings("two_workers"), monkeypatch)
    catalog = load_catalog(tiny_catalog)
    ids = [catalog.base.id, *catalog.checkpoint_ids]
    with persistent_instance(place) as instance:
        instance.add_dynamic_partitions("checkpoint", ids)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(place),
        "SIMMERGE_CATALOG": str(tiny_catalog),
        "SIMMERGE_DATA": str(tmp_path / "data"),
        "PYTHONPATH": str(PROJECT),
    }
    half = len(ids) // 2
    for name, part in (("worker-1", ids[:half]), ("worker-2", ids[half:])):
        program = Path(__file__).with_name("cluster_run_worker.py")
        command = [sys.executable, str(program), "checkpoints", part[0], part[-1]]
        processes.start(name, command, environment)
    for name in ("worker-1", "worker-2"):
        assert processes.wait(name) == 0, processes.told(name)

    assert set(DataRoot(tmp_path / "data").scan(CHECKPOINTS).select("checkpoint").collect()["checkpoint"]) == set(ids)
    with persistent_instance(place) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("checkpoints")) == set(ids)
        runs = instance.get_runs()
        assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 2
        written = [instance.get_records_for_run(run.run_id, of_type=WRITTEN).records for run in runs]
    assert sorted(map(len, written)) == sorted([half, len(ids) - half])
