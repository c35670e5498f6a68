"""Schedules and jobs that keep a catalog in order: a backfill within a budget, retention of caches."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from pipeline_world import SIGNALS, World

from simmerge_core.errors import SimMergeError, TableError
from simmerge_core.evaluation import EvaluationStore
from simmerge_core.probes import is_cached
from simmerge_core.retention import expendable, remove
from simmerge_pipeline import driver
from simmerge_pipeline.definitions import defs
from simmerge_pipeline.defs.operations.nightly import backfill, config_of_a_night, nightly_backfill
from simmerge_pipeline.defs.operations.retention import clear_caches
from simmerge_pipeline.driver import Budget
from simmerge_pipeline.materialize import materialize_all
from simmerge_pipeline.resources import CatalogResource, ComputeResource, DataRootResource

DAY = 86_400.0


def resources(world: World) -> dict[str, object]:
    return {
        "catalog": CatalogResource(path=str(world.catalog_path)),
        "data": DataRootResource(path=str(world.data)),
        "compute": ComputeResource(workers=1),
    }


def aged(path: Path, days: float) -> None:
    for file in [path, *path.rglob("*")]:
        os.utime(file, (time.time() - days * DAY,) * 2)


@pytest.fixture
def persistent(small: World, tmp_path: Path) -> Iterator[World]:
    """With an instance of its own on disk, as the daemon has, and the pools as they are shipped: one slot each."""
    (tmp_path / "home").mkdir()
    shipped = yaml.safe_load((Path(__file__).parents[2] / "dagster_home" / "dagster.yaml").read_text("utf-8"))
    settings = {"concurrency": shipped["concurrency"]}
    with dg.DagsterInstance.local_temp(str(tmp_path / "home"), overrides=settings) as instance:
        yield World(small.catalog_path, small.data, instance)


def test_schedules_are_visible_and_off_until_they_are_wanted() -> None:
    found = {schedule.name: schedule for schedule in defs().schedules or []}
    assert {"nightly_backfill", "weekly_retention", "daily_labels"} <= set(found)
    for name in ("nightly_backfill", "weekly_retention"):
        assert found[name].default_status == dg.DefaultScheduleStatus.STOPPED
        assert found[name].description


def test_a_budget_bounds_steps_that_want_the_accelerator_and_the_rest_is_left(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_PIECE", 1)
    ticks = iter(range(10_000))
    monkeypatch.setattr(driver.time, "perf_counter", lambda: 10.0 * next(ticks))  # every piece takes ten seconds

    def run(seconds: float) -> dict[str, tuple[int, int]]:
        summary = materialize_all(
            catalog=small.catalog_path,
            data_root=small.data,
            instance=small.instance,
            workers=1,
            assets=SIGNALS,
            budget=Budget(seconds),
        )
        assert summary.failed == {}
        return {a.name: (a.computed, a.left) for a in summary.assets}

    first = run(25.0)  # two pieces of ten seconds fit, the third would not
    assert first["checkpoints"] == (4, 0)  # wants no accelerator
    assert first["probe_activations"] == (2, 2)
    probed = [c for c in ("base", *small.catalog.checkpoint_ids) if is_cached(small.root, c, "math")]
    assert len(probed) == 2
    second = run(1000.0)
    assert second["probe_activations"] == (2, 0)
    assert all(left == 0 for _, left in second.values())
    assert all(computed == 0 for computed, _ in run(0.5).values())


def test_the_backfill_job_materializes_what_is_missing_into_its_own_instance(persistent: World) -> None:
    persistent.declare(merge_requests=[], labels={"multiway": {}})
    assert persistent.instance.get_concurrency_config().pool_config.default_pool_limit == 1
    assert backfill.nodes[0].definition.pool is None  # else the runs that it starts would wait for it for ever
    ops = {"backfill_what_is_missing": {"config": {"gpu_hours": 1.0}}}
    result = backfill.execute_in_process(
        instance=persistent.instance, resources=resources(persistent), run_config={"ops": ops}, raise_on_error=False
    )
    told = result.get_failed_step_keys() if not result.success else set()
    done = persistent.instance.get_materialized_partitions(dg.AssetKey("pairwise_features"))
    assert done == {f"{c}|math" for c in ("base", *persistent.catalog.checkpoint_ids)}, told


def test_a_night_has_the_hours_that_the_environment_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> object:
        with dg.build_schedule_context() as context:
            (request,) = nightly_backfill.evaluate_tick(context).run_requests or []
        return request.run_config

    monkeypatch.delenv("SIMMERGE_NIGHTLY_GPU_HOURS", raising=False)
    assert asked() == {}
    monkeypatch.setenv("SIMMERGE_NIGHTLY_GPU_HOURS", "2.5")
    assert asked() == {"ops": {"backfill_what_is_missing": {"config": {"gpu_hours": 2.5}}}}
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("SIMMERGE_NIGHTLY_GPU_HOURS", wrong)
        with pytest.raises(SimMergeError, match=f"SIMMERGE_NIGHTLY_GPU_HOURS is '{wrong}': give a number of hours"):
            config_of_a_night()


def test_the_backfill_job_takes_the_assets_that_it_is_given(small: World) -> None:
    def run(*assets: str) -> dg.ExecuteInProcessResult:
        ops = {"backfill_what_is_missing": {"config": {"assets": list(assets)}}}
        return backfill.execute_in_process(
            instance=small.instance, resources=resources(small), run_config={"ops": ops}, raise_on_error=False
        )

    assert run("checkpoints", "weight_gram").success
    runs = small.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
    assert {k.to_user_string() for r in runs for k in r.asset_selection or ()} == {"checkpoints", "weight_gram"}
    (failed,) = (e for e in run("weight_gramm").all_events if e.is_step_failure)
    assert "There is no asset 'weight_gramm': choose among " in str(failed.step_failure_data.error)


def test_only_caches_that_nobody_asks_for_are_expendable(small: World) -> None:
    assert small.materialize("checkpoints", "probe_activations").ok
    root, probes = small.root, small.data / "probe_activations"
    for folder in probes.glob("checkpoint=*/task=*"):
        aged(folder, 40)
    assert expendable(root, small.catalog, keep_days=30, now=time.time()) == []
    gone = small.catalog.checkpoint_ids[-1]
    small.declare(checkpoints=small.entries()[:-1])
    found = expendable(root, small.catalog, keep_days=30, now=time.time())
    assert [e.path for e in found] == [probes / f"checkpoint={gone}" / "task=math"]
    assert gone in found[0].why
    assert found[0].bytes == sum(f.stat().st_size for f in found[0].path.rglob("*") if f.is_file())
    assert expendable(root, small.catalog, keep_days=60, now=time.time()) == []
    assert remove(found) == found[0].bytes
    assert not is_cached(root, gone, "math")
    assert is_cached(root, small.catalog.checkpoint_ids[0], "math")


def test_the_cache_of_a_folder_that_is_not_whole_for_a_moment_stays(small: World) -> None:
    folder, entries = small.catalog_path.parent / "arrivals", small.entries()
    folder.mkdir()
    (small.catalog_path.parent / entries[-1]["path"]).rename(folder / entries[-1]["id"])
    small.declare(checkpoints=entries[:-1], discover=[{"folder": "arrivals", "domain": "math", "quiet_seconds": 0}])
    assert small.materialize("checkpoints", "probe_activations").ok
    for cache in small.data.glob("probe_activations/checkpoint=*/task=*"):
        aged(cache, 40)
    (folder / entries[-1]["id"] / "config.json").unlink()
    assert [left.name for left in small.catalog.left_out] == [entries[-1]["id"]]
    assert expendable(small.root, small.catalog, keep_days=30, now=time.time()) == []


def test_leftovers_of_killed_writers_go_after_a_day_and_young_ones_stay(small: World) -> None:
    folder = small.data / "merge_plans" / "merge_request=two"
    folder.mkdir(parents=True)
    old, young, whole = folder / ".part.parquet.1.tmp", folder / ".part.parquet.2.tmp", folder / "part.parquet"
    for file in (old, young, whole):
        file.write_bytes(b"x" * 10)
    (folder / ".selector.3.old").mkdir()
    (folder / ".selector.3.old" / ".inner.tmp").write_bytes(b"y")
    aged(old, 2)
    aged(folder / ".selector.3.old", 2)
    aged(whole, 400)
    found = expendable(small.root, small.catalog, keep_days=30, now=time.time())
    assert {e.path for e in found} == {old, folder / ".selector.3.old"}
    remove(found)
    assert young.is_file()
    assert whole.is_file()


@pytest.mark.parametrize("days", [0.0, 0.5, -1.0, float("nan")])
def test_what_is_younger_than_a_day_is_never_removed(small: World, days: float) -> None:
    with pytest.raises(TableError, match="younger than a day"):
        expendable(small.root, small.catalog, keep_days=days, now=time.time())


def test_the_retention_job_says_what_it_removes_and_leaves_everything_on_a_broken_catalog(small: World) -> None:
    assert small.materialize("checkpoints", "probe_activations").ok
    gone = small.data / "probe_activations" / f"checkpoint={small.catalog.checkpoint_ids[-1]}" / "task=math"
    small.declare(checkpoints=small.entries()[:-1])
    aged(gone, 40)

    def run(**config: object) -> dg.ExecuteInProcessResult:
        ops = {"remove_unused_caches": {"config": config}}
        return clear_caches.execute_in_process(
            resources=resources(small), run_config={"ops": ops}, raise_on_error=False
        )

    assert run(dry_run=True).success
    assert gone.is_dir()
    text = small.catalog_path.read_text()
    small.catalog_path.write_text("nonsense")
    assert not run().success
    assert gone.is_dir()
    small.catalog_path.write_text(text)
    assert run().success
    assert not gone.exists()
    assert len(EvaluationStore(small.data / "evaluations")) == 0
