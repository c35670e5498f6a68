"""Active labelling by day: a budget of merges, pairs beyond the design, and labels that the selector learns from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import torch
from pipeline_world import World
from polars.testing import assert_frame_equal

from simmerge_core.labels import design, shares_of, split_of
from simmerge_core.tables import ACTIVE_LABELS, MERGE_LABELS
from simmerge_pipeline import bandits
from simmerge_pipeline.actions import labelled_actions
from simmerge_pipeline.contents import fingerprints
from simmerge_pipeline.definitions import defs
from simmerge_pipeline.defs.bandit.active import daily_labels
from simmerge_pipeline.materialize import Summary
from simmerge_pipeline.partitions import DAY
from simmerge_pipeline.resources import CatalogResource, ComputeResource, DataRootResource
from simmerge_pipeline.stamps import stamp
from simmerge_pipeline.training import labelled_pairs

pytestmark = pytest.mark.integration

# Of the tiny catalog's twelve pairs of two domains one is a test pair, eight are labelled and three are not.
SPARSE = {"expert_auxiliary": 0.905, "auxiliary_auxiliary": 0.0, "test_share": 0.05}
ACTIONS = 7


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """A clock that stands still, at the time when the test began: partitions are days of the real one."""
    moment = datetime.now(UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return moment

    monkeypatch.setattr(bandits, "datetime", Clock)
    return moment


@pytest.fixture
def days(now: datetime) -> list[str]:
    """The day before yesterday, yesterday, today."""
    return [(now - timedelta(days=back)).strftime("%Y-%m-%d") for back in (2, 1, 0)]


@pytest.fixture
def sparse(finished: tuple[World, Summary], tmp_path: Path) -> Iterator[World]:
    """The designed labels of a catalog that leaves pairs out, with nothing in the store of evaluations."""
    torch.set_num_threads(1)
    source = finished[0]
    shutil.copytree(source.catalog_path.parent, tmp_path / "catalog")
    for name in ("checkpoints", "pairwise_features"):
        shutil.copytree(source.data / name, tmp_path / "data" / name)
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(tmp_path / "catalog" / source.catalog_path.name, tmp_path / "data", instance)
        world.declare(labels={**SPARSE, "daily_merges": ACTIONS + 1}, merge_requests=[])
        designed = design(world.catalog, world.catalog.checkpoint_ids)
        for keys in source.root.partitions(MERGE_LABELS):
            rows = source.root.read(MERGE_LABELS, **keys)
            kept = rows.drop("split").join(designed.drop("kind"), on=["a", "b", "task"], how="inner")
            world.root.write(MERGE_LABELS, kept.select(MERGE_LABELS.schema.keys()), **keys)
        yield world


def label(world: World, *days: str) -> dg.ExecuteInProcessResult:
    """Materialize days by hand, as the UI does."""
    resources = {
        "catalog": CatalogResource(path=str(world.catalog_path)),
        "data": DataRootResource(path=str(world.data)),
        "compute": ComputeResource(workers=1),
    }
    job = dg.Definitions(assets=defs().assets, resources=resources).resolve_implicit_global_asset_job_def()
    tags = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
    return job.execute_in_process(
        instance=world.instance,
        asset_selection=[dg.AssetKey("active_labels")],
        partition_key=days[0] if len(days) == 1 else None,
        tags=tags if len(days) > 1 else {},
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def pairs(rows: pl.DataFrame) -> set[tuple[str, str]]:
    return {(min(a, b), max(a, b)) for a, b in rows.select("a", "b").iter_rows()}


def undesigned(world: World) -> set[tuple[str, str]]:
    """Pairs of two domains that the design leaves out, without test pairs."""
    catalog, domains = world.catalog, world.catalog.domains
    cross = {p for p in combinations(sorted(domains), 2) if domains[p[0]] != domains[p[1]]}
    left = cross - pairs(design(catalog, catalog.checkpoint_ids))
    return {p for p in left if split_of(*p, shares=shares_of(catalog), salt=catalog.labels.salt) != "test"}


def test_a_day_labels_for_its_budget_and_the_next_one_other_pairs(
    sparse: World, finished: tuple[World, Summary], days: list[str]
) -> None:
    _, yesterday, today = days
    offered = undesigned(sparse)
    assert len(offered) == 3
    before = labelled_pairs(sparse.root, fingerprints(sparse.root, sparse.catalog))[1]
    stale = stamp("selector", sparse.catalog, sparse.root)
    assert label(sparse, yesterday).success

    rows = sparse.root.read(ACTIVE_LABELS, day=yesterday)
    assert ACTIVE_LABELS.validated(rows.drop("day"), where="here").equals(rows.drop("day"))
    assert len(pairs(rows)) == 1  # a second one would not fit
    assert pairs(rows) <= offered
    assert rows.select("a", "b", "action").n_unique() == ACTIONS <= sparse.catalog.labels.daily_merges
    assert set(rows["action"]) == set(labelled_actions(sparse.catalog))
    ((a, b),) = pairs(rows)
    assert set(rows["task"]) == {sparse.catalog.domains[a], sparse.catalog.domains[b]}
    split = split_of(a, b, shares=shares_of(sparse.catalog), salt=sparse.catalog.labels.salt)
    assert set(rows["split"]) == {split} != {"test"}

    # They are the rows that the design would have had, scored here anew.
    key = ["task", "a", "b", "action", "benchmark", "metric", "item_set", "seed"]
    designed = finished[0].root.scan(MERGE_LABELS).collect().join(rows, on=key, how="semi")
    assert designed.height == rows.height
    columns = [c for c in rows.columns if c not in ("day", "split")]
    assert_frame_equal(rows.select(columns).sort(key), designed.select(columns).sort(key), check_exact=True)

    # What is trained on holds them beside the designed ones, and is stale without.
    after = labelled_pairs(sparse.root, fingerprints(sparse.root, sparse.catalog))[1]
    assert after.height == before.height + rows.height
    assert pairs(after) == pairs(before) | pairs(rows)
    assert stamp("selector", sparse.catalog, sparse.root) != stale

    assert label(sparse, today).success
    second = sparse.root.read(ACTIVE_LABELS, day=today)
    assert len(pairs(second)) == 1
    assert pairs(second) <= offered - pairs(rows)
    assert sparse.root.read(ACTIVE_LABELS, day=yesterday).equals(rows)

    # The same day again has spent its budget; with a larger one it spends the rest, until no pair is left.
    assert label(sparse, today).success
    assert sparse.root.read(ACTIVE_LABELS, day=today).equals(second)
    sparse.declare(labels={**SPARSE, "daily_merges": 1000})
    assert label(sparse, today).success
    third = sparse.root.read(ACTIVE_LABELS, day=today)
    assert third.head(second.height).equals(second)
    assert pairs(third) == offered - pairs(rows)
    assert label(sparse, yesterday, today).success
    for day, found in ((yesterday, rows), (today, third)):
        assert sparse.root.read(ACTIVE_LABELS, day=day).equals(found)


def test_a_selector_is_trained_on_them(sparse: World, days: list[str]) -> None:
    from simmerge_core.analysis import selector_folder
    from simmerge_core.selector import Selector

    sparse.declare(labels={**SPARSE, "daily_merges": 3 * ACTIONS})
    assert sparse.materialize("selector").ok
    before = Selector.load(selector_folder(sparse.root, "paper"))
    assert label(sparse, days[-1]).success
    summary = sparse.materialize("selector")
    assert (summary.failed, summary.assets[0].computed) == ({}, 1)
    after = Selector.load(selector_folder(sparse.root, "paper"))
    assert after.training_fingerprint != before.training_fingerprint
    found = dg.AssetKey("active_labels")
    event = sparse.instance.get_latest_materialization_event(found)
    assert event is not None
    assert event.asset_materialization is not None
    told = event.asset_materialization.metadata
    assert len(str(told["pairs"].value).splitlines()) == 3
    assert all(text.endswith(" nats for 7 merges") for text in str(told["pairs"].value).splitlines())
    check = dg.AssetCheckKey(found, "no_nan")
    (record,) = sparse.instance.event_log_storage.get_latest_asset_check_execution_by_key([check]).values()
    assert record.status.value == "SUCCEEDED"


def test_a_broken_checkpoint_s_pairs_are_told_and_the_others_kept(sparse: World, days: list[str]) -> None:
    sparse.declare(labels={**SPARSE, "daily_merges": 3 * ACTIONS})
    broken = sparse.catalog_path.parent / "checkpoints" / "code-01" / "model.safetensors"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    result = label(sparse, days[-1])
    assert result.success
    offered = undesigned(sparse)
    sound = {pair for pair in offered if "code-01" not in pair}
    assert 0 < len(sound) < len(offered)
    assert pairs(sparse.root.read(ACTIVE_LABELS, day=days[-1])) == sound
    logged = [entry.user_message for entry in sparse.instance.all_logs(result.run_id)]
    assert any("code-01" in text and "model.safetensors" in text for text in logged)

    broken.write_bytes(whole)
    assert label(sparse, days[-1]).success  # the day has its budget for them still
    assert pairs(sparse.root.read(ACTIVE_LABELS, day=days[-1])) == offered


def test_a_day_that_is_over_spends_nothing(sparse: World, days: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before, yesterday, _ = days
    assert label(sparse, before).success
    assert sparse.root.read(ACTIVE_LABELS, day=before).height == 0
    assert label(sparse, yesterday).success
    rows = sparse.root.read(ACTIVE_LABELS, day=yesterday)
    assert rows.height
    sparse.declare(labels={**SPARSE, "daily_merges": 1000})
    monkeypatch.setattr(bandits, "not_over", lambda day: False)
    monkeypatch.setattr("simmerge_pipeline.defs.bandit.active.not_over", lambda day: False)
    assert label(sparse, yesterday).success
    assert sparse.root.read(ACTIVE_LABELS, day=yesterday).equals(rows)


def test_the_day_is_over_two_days_later(now: datetime) -> None:
    days = {back: (now - timedelta(days=back)).strftime("%Y-%m-%d") for back in (-1, 0, 1, 2, 30)}
    assert [bandits.not_over(day) for day in days.values()] == [True, True, True, False, False]


@pytest.mark.parametrize("budget", [0, ACTIONS - 1])
def test_a_budget_for_no_pair_gives_an_empty_table(sparse: World, days: list[str], budget: int) -> None:
    sparse.declare(labels={**SPARSE, "daily_merges": budget})
    if budget == 0:
        shutil.rmtree(sparse.data / "merge_labels")  # nothing is asked of the labels either
    assert label(sparse, days[-1]).success
    rows = sparse.root.read(ACTIVE_LABELS, day=days[-1])
    assert rows.height == 0
    assert rows.drop("day").schema == ACTIVE_LABELS.empty().schema


def test_too_few_labels_to_tell_are_refused(sparse: World, days: list[str]) -> None:
    sparse.declare(tasks=[task.model_dump(mode="json") for task in sparse.catalog.tasks][:1])
    for keys in sparse.root.partitions(MERGE_LABELS):
        if keys["task"] != "math":
            rows = sparse.root.read(MERGE_LABELS, **keys)
            sparse.root.write(MERGE_LABELS, rows.clear().drop(*keys), **keys)
    result = label(sparse, days[-1])
    assert not result.success
    (event,) = [e for e in result.all_events if e.is_step_failure]
    told = event.step_failure_data.user_failure_data
    assert told is not None
    assert "labelled pairs are outside the test split, and a warm start needs at least 8" in str(told.description)
    assert not sparse.root.exists(ACTIVE_LABELS, day=days[-1])


# --- the schedule


def evaluated(catalog: Path, at: datetime) -> Any:
    with dg.build_schedule_context(
        scheduled_execution_time=at, resources={"catalog": CatalogResource(path=str(catalog))}
    ) as context:
        return daily_labels(context)


def test_the_schedule_asks_for_the_partition_of_its_day(sparse: World, now: datetime) -> None:
    at = datetime(2026, 2, 3, 1, 30, tzinfo=UTC)
    asked = evaluated(sparse.catalog_path, at)
    assert isinstance(asked, dg.RunRequest)
    assert asked.partition_key == asked.run_key == "2026-02-03"
    assert asked.partition_key in DAY.get_partition_keys(current_time=at)  # the day is not over, and is there
    assert daily_labels.cron_schedule == "30 1 * * *"
    assert daily_labels.default_status == dg.DefaultScheduleStatus.RUNNING


def test_the_schedule_skips_without_a_budget(sparse: World, tmp_path: Path, now: datetime) -> None:
    sparse.declare(labels=SPARSE)
    skipped = evaluated(sparse.catalog_path, now)
    assert isinstance(skipped, dg.SkipReason)
    assert "labels.daily_merges is 0" in str(skipped.skip_message)
    none = evaluated(tmp_path / "none.yaml", now)
    assert isinstance(none, dg.SkipReason)
    assert "There is no catalog" in str(none.skip_message)


def test_the_schedule_tells_what_is_wrong_with_the_catalog(sparse: World, now: datetime) -> None:
    sparse.catalog_path.write_text("version: [1")
    with pytest.raises(dg.Failure, match="not valid YAML"):
        evaluated(sparse.catalog_path, now)
