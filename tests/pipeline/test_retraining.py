"""The label budget of a checkpoint, and how many new labels the selectors wait for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import polars as pl
import pytest
import torch
from pipeline_standins import READS, Standins, made

from simmerge_core.tables import MERGE_LABELS, PAIRWISE_FEATURES, DataRoot, Table
from simmerge_pipeline import retraining
from simmerge_pipeline.arrivals import catalog_of_tick
from simmerge_pipeline.contents import fingerprints, held_labels
from simmerge_pipeline.resources import CatalogResource
from simmerge_pipeline.retraining import LabelNews, keep_trained_on, label_keys, label_news

CHECKPOINTS = {"c0": "math", "c1": "code", "c2": "math", "c3": "code", "c4": "math"}
TASKS = ("math", "code")


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standins]:
    torch.set_num_threads(1)
    full = made(tmp_path_factory.mktemp("catalog"), CHECKPOINTS, TASKS, labels={"merges_per_checkpoint": 1})
    world = Standins(full.path.parent, full, DataRoot(tmp_path_factory.mktemp("data")), [], list(TASKS))
    with world.watched():
        yield world


def budget(world: Standins, **settings: object) -> None:
    world.full = world.full.model_copy(update={"labels": world.full.labels.model_copy(update=settings)})


def grow(world: Standins, *checkpoints: str) -> None:
    world.present += checkpoints
    for asset in READS:
        world.run(asset, world.ready(asset))


def pairs_by_owner(world: Standins) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for owner, other, _ in held_labels(world.root, fingerprints(world.root, world.catalog)):
        found.setdefault(owner, set()).add(other)
    return found


def test_each_checkpoint_adds_as_many_pairs_as_its_budget_on_all_their_tasks(world: Standins) -> None:
    for checkpoint in CHECKPOINTS:
        before = pairs_by_owner(world)
        grow(world, checkpoint)
        after = pairs_by_owner(world)
        assert {owner: after[owner] for owner in before} == before
        assert len(after.get(checkpoint, set())) == (1 if world.present.index(checkpoint) else 0)
    tasks = world.root.scan(MERGE_LABELS).group_by("a", "b").agg(pl.col("task").n_unique()).collect()
    assert tasks["task"].to_list() == [2] * 4  # a pair is merged once and scored on both tasks


def test_a_changed_budget_drops_nothing_and_adds_what_it_allows(world: Standins) -> None:
    grow(world, *CHECKPOINTS)
    before = pairs_by_owner(world)
    assert max(map(len, before.values())) == 1
    budget(world, merges_per_checkpoint=2)
    world.run("merge_labels", world.keys("merge_labels"))
    more = pairs_by_owner(world)
    assert all(before[owner] <= more[owner] for owner in before)
    assert max(map(len, more.values())) == 2
    budget(world, merges_per_checkpoint=1)
    world.run("merge_labels", world.keys("merge_labels"))
    assert pairs_by_owner(world) == more
    budget(world, merges_per_checkpoint=None)
    world.run("merge_labels", world.keys("merge_labels"))
    assert sum(map(len, pairs_by_owner(world).values())) == 3 * 2  # every pair of a math and a code checkpoint


def test_labels_are_new_until_they_were_trained_on(world: Standins) -> None:
    budget(world, merges_per_checkpoint=None, retrain_after=0.5)

    def keys() -> list[str]:
        return label_keys(world.root, fingerprints(world.root, world.catalog))

    grow(world, "c0", "c1", "c2")  # two pairs, each on two tasks
    assert label_news(world.catalog, world.root, keys()) == LabelNews(4, None, 4, 1)
    assert label_news(world.catalog, world.root, keys()).enough  # nothing was ever trained
    keep_trained_on(world.root, keys())
    assert label_news(world.catalog, world.root, keys()) == LabelNews(4, 4, 0, 2)
    world.present.remove("c2")
    grow(world, "c4")  # as many labels as before, and two of them are others
    assert label_news(world.catalog, world.root, keys()) == LabelNews(4, 4, 2, 2)
    assert label_news(world.catalog, world.root, keys()).enough
    budget(world, retrain_after=0.6)
    assert not label_news(world.catalog, world.root, keys()).enough
    budget(world, retrain_after=0.0)
    keep_trained_on(world.root, keys())
    assert not label_news(world.catalog, world.root, keys()).enough  # one label at least


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        (MERGE_LABELS, "evaluation_key", "other"),
        (PAIRWISE_FEATURES, "probe_key", "other"),
        (PAIRWISE_FEATURES, "feature_version", 99),
    ],
)
def test_a_label_that_is_scored_anew_or_has_other_features_is_new(
    world: Standins, table: Table, column: str, value: object
) -> None:
    budget(world, merges_per_checkpoint=None, retrain_after=0.5)
    grow(world, "c0", "c1", "c2")
    prints = fingerprints(world.root, world.catalog)
    keep_trained_on(world.root, label_keys(world.root, prints))
    owner = next(keys for keys in world.root.partitions(MERGE_LABELS) if world.root.read(MERGE_LABELS, **keys).height)
    labelled = world.root.read(MERGE_LABELS, **owner).select("a", "b").unique().height
    rows = world.root.read(table, **owner).drop("checkpoint", "task")
    changed = rows.with_columns(pl.lit(value, dtype=rows.schema[column]).alias(column))
    changed.write_parquet(world.root.path(table, **owner))
    assert label_news(world.catalog, world.root, label_keys(world.root, prints)).new == labelled


def test_a_data_root_that_cannot_be_used_fails_the_step_and_not_the_tick(
    world: Standins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMMERGE_DATA", "gopher://nowhere")
    assert retraining._enough(world.catalog)


@pytest.mark.parametrize("content", ["", '["a', "7", "[[]]"])
def test_a_damaged_list_of_labels_counts_as_never_trained(world: Standins, content: str) -> None:
    keep_trained_on(world.root, ["a"])
    assert label_news(world.catalog, world.root, ["a"]).known == 1
    (world.root.root / "selector" / "labels.json").write_text(content)
    assert label_news(world.catalog, world.root, ["a"]) == LabelNews(1, None, 1, 1)


def test_whatever_is_wrong_with_the_catalog_does_not_take_the_tick_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(resource: CatalogResource) -> None:
        raise IndexError("string index out of range")

    monkeypatch.setattr(CatalogResource, "load", fail)
    assert catalog_of_tick(datetime(1999, 12, 31)) is None
