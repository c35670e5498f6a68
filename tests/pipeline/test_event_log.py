"""The batched event log: what it writes, Dagster's own class reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from simmerge_core.errors import SimMergeError
from simmerge_pipeline.event_log import BATCH, BatchedSqliteEventLog, persistent_instance, written_in_batches
from simmerge_pipeline.partition_run import PartitionRun
from simmerge_pipeline.partitions import CHECKPOINT_TASK
from simmerge_pipeline.resources import PROJECT_ROOT

_ARTIFACTS = "  module: dagster._core.storage.root\n  class: LocalArtifactStorage\n  config:\n    base_dir: {}\n"
CHECKPOINTS, TASKS = ["c1", "c2", "c3"], ["math", "code"]
RANGE = {"dagster/asset_partition_range_start": "c1|math", "dagster/asset_partition_range_end": "c3|code"}


@pytest.fixture(autouse=True)
def _batches_end_with_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "0")  # so that it is put back
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE")


def job() -> dg.JobDefinition:
    @dg.asset(partitions_def=CHECKPOINT_TASK, check_specs=[dg.AssetCheckSpec("fine", asset="table")])
    def table(context):  # type: ignore[no-untyped-def]  # Dagster cannot read a postponed annotation
        run = PartitionRun(context)
        for key in run.keys:
            run.verdicts.add("fine", key, None)
            run.wrote(key, {"of": key})
        yield from run.results()

    return dg.Definitions(assets=[table]).resolve_implicit_global_asset_job_def()


def executed(instance: dg.DagsterInstance) -> str:
    instance.add_dynamic_partitions("checkpoint", CHECKPOINTS)
    instance.add_dynamic_partitions("task", TASKS)
    result = job().execute_in_process(instance=instance, asset_selection=[dg.AssetKey("table")], tags=RANGE)
    assert result.success
    return result.run_id


def seen(instance: dg.DagsterInstance, run_id: str) -> Iterator[Any]:
    table = dg.AssetKey("table")
    yield instance.get_materialized_partitions(table)
    records = instance.fetch_materializations(table, limit=100).records
    yield [(r.partition_key, r.asset_materialization.metadata["of"].value) for r in records if r.asset_materialization]
    yield sorted(r.asset_materialization.tags["dagster/partition/task"] for r in records if r.asset_materialization)
    kinds = [e.dagster_event.event_type_value for e in instance.all_logs(run_id) if e.dagster_event]
    yield sorted(kinds)
    event = instance.get_latest_materialization_event(table)
    yield event.asset_materialization.partition if event and event.asset_materialization else None
    (check,) = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [dg.AssetCheckKey(table, "fine")]
    ).values()
    yield check.status.value
    run = instance.get_run_by_id(run_id)
    yield run.status if run else None


def test_dagsters_own_event_log_reads_the_same(tmp_path: Path) -> None:
    with persistent_instance(tmp_path / "ours") as instance:
        assert isinstance(instance.event_log_storage, BatchedSqliteEventLog)
        run_id = executed(instance)
    with dg.DagsterInstance.from_config(str(tmp_path / "ours")) as instance:
        assert not isinstance(instance.event_log_storage, BatchedSqliteEventLog)
        found = list(seen(instance, run_id))
    with dg.DagsterInstance.from_config(_home(tmp_path / "theirs")) as instance:
        expected = list(seen(instance, executed(instance)))
    assert found == expected


@pytest.mark.parametrize("what", ["storage:\n  sqlite:\n    base_dir: {}\n", "local_artifact_storage:\n" + _ARTIFACTS])
def test_a_configured_place_is_kept(tmp_path: Path, what: str) -> None:
    home = Path(_home(tmp_path / "home"))
    (home / "dagster.yaml").write_text(what.format(tmp_path / "elsewhere"))
    key = dg.AssetKey("table")
    with dg.DagsterInstance.from_config(str(home)) as own:
        executed(own)
        with written_in_batches(own) as instance:
            assert isinstance(instance.event_log_storage, BatchedSqliteEventLog)
            assert len(instance.get_materialized_partitions(key)) == 6
            run_id = executed(instance)
        with persistent_instance(home) as instance:
            assert isinstance(instance.event_log_storage, BatchedSqliteEventLog)
            assert {run.run_id for run in instance.get_runs()} >= {run_id}
        assert len(own.fetch_materializations(key, limit=100).records) == 12
        assert len(own.get_runs()) == 2
    events = {file.parents[2] for file in tmp_path.rglob(f"{run_id}.db")}
    assert events == {tmp_path / ("elsewhere" if "sqlite" in what else "home")}


def _home(path: Path) -> str:
    path.mkdir()
    return str(path)


def test_an_instance_with_dagsters_own_sqlite_is_written_in_batches_and_another_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("concurrency:\n  pools:\n    default_limit: 3\n")
    with dg.DagsterInstance.from_config(str(home)) as own:
        with written_in_batches(own) as instance:
            assert isinstance(instance.event_log_storage, BatchedSqliteEventLog)
            assert instance.get_concurrency_config().pool_config.default_pool_limit == 3
            run_id = executed(instance)
        assert next(iter(seen(own, run_id))) == {f"{c}|{t}" for c in CHECKPOINTS for t in TASKS}
    with dg.DagsterInstance.ephemeral() as other, written_in_batches(other) as instance:
        assert instance is other


SHIPPED = PROJECT_ROOT / "dagster_home" / "dagster.yaml"


def test_the_shipped_settings_have_it_where_dagsters_own_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(SHIPPED, tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, BatchedSqliteEventLog)
        assert int(os.environ["DAGSTER_EVENT_BATCH_SIZE"]) == BATCH  # inherited by the processes of its runs
        run_id = executed(instance)
    assert (tmp_path / "history" / "runs" / f"{run_id}.db").is_file()
    (tmp_path / "dagster.yaml").unlink()
    with dg.DagsterInstance.get() as plain:
        assert type(plain.event_log_storage) is not BatchedSqliteEventLog
        assert next(iter(seen(plain, run_id))) == {f"{c}|{t}" for c in CHECKPOINTS for t in TASKS}


def test_an_instance_of_another_folder_keeps_its_own_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
        shutil.copy(SHIPPED, tmp_path / name)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "elsewhere"))
    with persistent_instance(tmp_path / "here") as instance:
        executed(instance)
        key = dg.AssetKey("table")
        assert len(instance.get_materialized_partitions(key)) == 6
        with dg.DagsterInstance.get() as other:
            assert other.get_materialized_partitions(key) == set()
    monkeypatch.delenv("DAGSTER_HOME")
    with pytest.raises(SimMergeError, match="set DAGSTER_HOME, or base_dir in"):
        BatchedSqliteEventLog.from_config_value(None, {})


def test_the_home_may_be_that_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "~/dagster")
    log = BatchedSqliteEventLog.from_config_value(None, {})
    assert Path(log._base_dir) == tmp_path / "dagster" / "history" / "runs"
    log.dispose()


def count(log: BatchedSqliteEventLog, run_id: str) -> int:
    with log.run_connection(run_id) as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM event_logs").scalar() or 0)


def test_connections_to_the_databases_of_many_runs_are_closed_again(tmp_path: Path) -> None:
    log = BatchedSqliteEventLog(str(tmp_path))
    for number in range(20):
        assert count(log, f"run-{number}") == count(log, "run-0") == 0
        assert len(log._engines) <= 1 + 8  # that of all runs besides
    assert "run-0" in log._engines  # the one used last stays
    log.dispose()
    assert log._engines == {}


def test_many_threads_read_and_write_the_databases_of_many_runs(tmp_path: Path) -> None:
    log = BatchedSqliteEventLog(str(tmp_path))
    runs = [f"run-{number}" for number in range(12)]

    def write(run_id: str) -> None:
        for _ in range(5):
            with log.run_connection(run_id) as connection:
                connection.exec_driver_sql("INSERT INTO event_logs (run_id, event) VALUES (?, '{}')", (run_id,))
            assert {count(log, other) for other in runs} <= set(range(6))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, runs))
    assert [count(log, run_id) for run_id in runs] == [5] * 12
    log.dispose()


def test_a_database_that_was_removed_is_not_written_any_more(tmp_path: Path) -> None:
    log = BatchedSqliteEventLog(str(tmp_path))
    with log.run_connection("run") as connection:
        connection.exec_driver_sql("INSERT INTO event_logs (run_id, event) VALUES ('run', '{}')")
    for file in tmp_path.glob("run.db*"):
        file.unlink()
    assert count(log, "run") == 0
    assert (tmp_path / "run.db").is_file()
    log.wipe()
    assert count(log, "run") == 0
    log.dispose()


def test_a_database_that_could_not_be_made_is_made_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = BatchedSqliteEventLog(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(log, "_initdb", lambda engine: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            count(log, "run")
    assert count(log, "run") == 0
    log.dispose()
