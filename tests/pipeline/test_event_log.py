"""The batched event log: what it writes, Dagster's own class reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from simmerge_core.errors import SimMergeError
from simmerge_pipeline.event_log import BATCH, BatchedSqliteEventLog, persistent_instance, written_in_batches
from simmerge_pipeline.partition_run import PartitionRun
from simmerge_pipeline.partitions import CHECKPOINT_TASK
from simmerge_pipeline.resources import PROJECT_ROOT

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


def test_a_configured_storage_is_left_alone(tmp_path: Path) -> None:
    home = Path(_home(tmp_path / "home"))
    (home / "dagster.yaml").write_text(f"storage:\n  sqlite:\n    base_dir: {tmp_path / 'elsewhere'}\n")
    with persistent_instance(home) as instance:
        assert not isinstance(instance.event_log_storage, BatchedSqliteEventLog)
        executed(instance)
    assert (tmp_path / "elsewhere").is_dir()


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


def test_connections_to_the_databases_of_many_runs_are_closed_again(tmp_path: Path) -> None:
    log = BatchedSqliteEventLog(str(tmp_path))
    for number in range(20):
        with log.run_connection(f"run-{number}"):
            assert len(log._engines) <= 1 + 8  # that of all runs besides
        with log.run_connection("run-0"):
            pass
    assert "run-0" in log._engines  # the one used last stays
    log.wipe()
    assert log._engines == {}
    with log.run_connection("run-0") as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM event_logs").scalar() == 0
    log.dispose()
