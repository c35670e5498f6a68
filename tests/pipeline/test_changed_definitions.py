"""A definition that changes puts the right partitions out of date, and only those; an arrival puts none."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml
from pipeline_world import SIGNALS, World

from simmerge_core.demo import build
from simmerge_core.errors import SimMergeError
from simmerge_core.features.columns import FEATURE_VERSION
from simmerge_core.selector import SELECTOR_FORMAT
from simmerge_core.tables import PAIRWISE_FEATURES
from simmerge_pipeline import stamps
from simmerge_pipeline.definitions import defs
from simmerge_pipeline.driver import Driver
from simmerge_pipeline.materialize import Summary
from simmerge_pipeline.partitions import cell

pytestmark = pytest.mark.integration

Outdated = dict[str, set[str | None]]
ONE: set[str | None] = {None}


@dataclass
class Changeable:
    """A copy of the finished catalog that a test changes, with the results and the events of the original."""

    world: World

    @property
    def folder(self) -> Path:
        return self.world.catalog_path.parent

    def cells(self, *tasks: str) -> set[str | None]:
        ids = (self.world.catalog.base.id, *self.world.catalog.checkpoint_ids)
        return {f"{c}|{t}" for c in ids for t in tasks or self.world.catalog.task_ids}

    def requests(self, task: str) -> set[str | None]:
        return {r.id for r in self.world.catalog.merge_requests if task in r.targets}

    def outdated(self) -> Outdated:
        """What a backfill would compute, by asset; what cannot be computed counts, too."""
        world, found = self.world, {}
        driver = Driver(graph(), world.instance, world.catalog, world.root, None)
        for name in (key.to_user_string() for key in driver.graph.toposorted_asset_keys):
            keys = driver._declared(name)
            known = driver._stamps(name, keys)
            stale = {key for key in keys if not self._current(name, key, known.get(key))}
            if stale:
                found[name] = stale
        return found

    def _current(self, name: str, key: str | None, known: str | None) -> bool:
        world = self.world
        try:
            settled = stamps.settled(name, world.catalog, world.root, key)
            return settled or known == stamps.stamp(name, world.catalog, world.root, key)
        except SimMergeError:
            return False


@functools.cache
def graph() -> dg.JobDefinition:
    return dg.Definitions(assets=defs().assets, resources=RESOURCES).resolve_implicit_global_asset_job_def()


RESOURCES = {name: dg.ResourceDefinition.none_resource() for name in ("catalog", "data", "compute")}


@pytest.fixture
def changeable(finished: tuple[World, Summary], tmp_path: Path) -> Changeable:
    original = finished[0]
    shutil.copytree(original.catalog_path.parent, tmp_path / "catalog")
    path = build(tmp_path / "catalog", preset="tiny", workers=1)  # trains nothing; the lm-eval files for this place
    return Changeable(World(path, original.data, original.instance))


def line_changed(file: Path) -> None:
    first, *rest = file.read_text(encoding="utf-8").splitlines(keepends=True)
    row = json.loads(first)
    name = next(key for key, value in row.items() if isinstance(value, str))
    file.write_text(json.dumps({**row, name: row[name] + "."}) + "\n" + "".join(rest), encoding="utf-8")


def entry_changed(changeable: Changeable, key: str, change: Callable[[Any], Any]) -> None:
    content = yaml.safe_load(changeable.world.catalog_path.read_text())
    changeable.world.declare(**{key: change(content.get(key, {}))})


def test_nothing_is_out_of_date_where_nothing_has_changed(changeable: Changeable) -> None:
    assert changeable.outdated() == {}


def test_the_version_of_the_features(changeable: Changeable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "FEATURE_VERSION", FEATURE_VERSION + 1)
    assert changeable.outdated() == {"pairwise_features": changeable.cells(), "bandit": ONE}


def test_the_format_of_the_selector(changeable: Changeable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "SELECTOR_FORMAT", SELECTOR_FORMAT + 1)
    tasks = set(changeable.world.catalog.task_ids)
    assert changeable.outdated() == {"selector": ONE, "plan_labels": tasks, "report": ONE}


def test_the_items_of_a_benchmark(changeable: Changeable) -> None:
    line_changed(changeable.folder / "tasks" / "math" / "A.jsonl")
    of_task = changeable.cells("math")
    assert changeable.outdated() == {
        "standalone_scores": of_task,
        "merge_labels": of_task,
        "plan_labels": {"math"},
        "merge_outcomes": changeable.requests("math"),
        "bandit_rounds": changeable.requests("math"),
    }


@pytest.mark.parametrize("what", ["prompts", "settings"])
def test_the_probes_of_a_task(changeable: Changeable, what: str) -> None:
    if what == "prompts":
        line_changed(changeable.folder / "tasks" / "math" / "probe.jsonl")
    else:
        entry_changed(
            changeable,
            "tasks",
            lambda tasks: [{**t, "probe_settings": {"count": 3}} if t["id"] == "math" else t for t in tasks],
        )
    of_task = changeable.cells("math")
    assert changeable.outdated() == dict.fromkeys(
        ("probe_activations", "functional_similarity", "pairwise_features"), of_task
    )


def test_an_action_set(changeable: Changeable) -> None:
    changeable.world.declare(action_sets={"mine": ["linear@0.3", "slerp@0.7"]})
    tasks = set(changeable.world.catalog.task_ids)
    assert changeable.outdated() == {
        "merge_labels": changeable.cells(), "selector": ONE, "plan_labels": tasks, "report": ONE
    }  # fmt: skip


def test_which_pairs_are_labelled(changeable: Changeable) -> None:
    entry_changed(changeable, "labels", lambda labels: {**labels, "auxiliary_auxiliary": 0.77})
    tasks = set(changeable.world.catalog.task_ids)
    assert changeable.outdated() == {"merge_labels": changeable.cells(), "plan_labels": tasks}


def test_settings_that_no_label_depends_on(changeable: Changeable) -> None:
    many = {"daily_merges": 3, "retrain_after": 0.9, "merges_per_checkpoint": 63}
    entry_changed(changeable, "labels", lambda labels: {**labels, **many})
    assert changeable.outdated() == {}


def test_a_budget_concerns_the_partitions_that_it_bounds(changeable: Changeable) -> None:
    entry_changed(changeable, "labels", lambda labels: {**labels, "merges_per_checkpoint": 2})
    held = changeable.world.root.scan(PAIRWISE_FEATURES).filter(pl.col("a") == pl.col("checkpoint"))
    counted = held.group_by("checkpoint", "task").len("pairs").filter(pl.col("pairs") > 2).collect()
    wanted = {f"{c}|{t}" for c, t in counted.select("checkpoint", "task").iter_rows()}
    assert wanted
    assert wanted < changeable.cells()
    assert changeable.outdated() == {"merge_labels": wanted}


def test_other_weights_under_the_same_id_concern_that_checkpoint(changeable: Changeable) -> None:
    (changeable.folder / "checkpoints" / "math-01" / "model.safetensors").write_bytes(b"other")
    assert changeable.outdated() == {"checkpoints": {"math-01"}}  # and are refused there


def test_a_checkpoint_that_arrives_or_leaves_puts_no_earlier_partition_out_of_date(changeable: Changeable) -> None:
    world = changeable.world
    entries = world.entries()
    world.declare(checkpoints=[*entries, world.add_checkpoint("math-09", like="math-01")])
    found = changeable.outdated()
    assert {key for keys in found.values() for key in keys if key and cell_or_id(key) != "math-09"} == set()
    merged = pl.scan_parquet(world.data / "merge_plans" / "*" / "part.parquet").filter(pl.col("rank") == 1).collect()
    gone = merged["order"][0][0]
    world.declare(checkpoints=[entry for entry in entries if entry["id"] != gone])
    found = changeable.outdated()
    # Plans of several are designed over all checkpoints, and bandits go on; a request that was executed stays.
    assert set(found) <= {"plan_labels"}


def cell_or_id(key: str) -> str:
    return cell(key).checkpoint if "|" in key else key


def test_a_request_that_asks_for_something_else_is_open_again(changeable: Changeable) -> None:
    world = changeable.world
    first = next(r for r in world.catalog.merge_requests if r.policy == "selector")
    entry_changed(changeable, "merge_requests", lambda rs: [{**r, "top": 7} if r["id"] == first.id else r for r in rs])
    assert changeable.outdated()["merge_plans"] == {first.id}


def test_dagster_marks_nothing_stale_when_a_checkpoint_arrives(small: World) -> None:
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
    from dagster._core.loader import LoadingContextForTest

    assets = defs().resolve_asset_graph()

    def stale(asset: str, key: str) -> StaleStatus:
        resolver = CachingStaleStatusResolver(small.instance, assets, LoadingContextForTest(small.instance))
        return resolver.get_status(dg.AssetKey(asset), key)

    assert small.materialize(*SIGNALS).ok
    small.declare(checkpoints=[*small.entries(), small.add_checkpoint("math-09", like="math-01")])
    assert small.materialize(*SIGNALS).ok
    for asset in SIGNALS:
        by_checkpoint = asset in ("checkpoints", "weight_gram")
        for checkpoint in ("base", *small.catalog.checkpoint_ids):
            assert stale(asset, checkpoint if by_checkpoint else f"{checkpoint}|math") == StaleStatus.FRESH


def test_dagster_marks_by_code_version_what_a_version_of_ours_changes() -> None:
    assets = defs().resolve_asset_graph()
    versions = {name: str(assets.get(dg.AssetKey(name)).code_version).split(".")[1:] for name in stamps._INPUTS}
    told = {name: version for name, version in versions.items() if version}
    features, selectors = str(FEATURE_VERSION), str(SELECTOR_FORMAT)
    assert told == {"pairwise_features": [features], "bandit": [features], "selector": [selectors, features]}
