"""Training rows: mirrored labels, means in the right order, splits that cannot leak."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from selector_world import World, make_world

from simmerge_core.errors import SelectionError
from simmerge_core.selector import checkpoint_folds, checkpoint_split, task_split, training_rows
from simmerge_core.selector.rows import pair_ids, refuse_leaks
from simmerge_core.selector.splits import pair_folds, validation_mask
from simmerge_core.tables import MERGE_LABELS, PAIRWISE_FEATURES

ACTIONS = ("linear@0.5", "slerp@0.3", "slerp@0.7")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(per_domain=3, actions=ACTIONS, seed=3)


def test_the_synthetic_tables_satisfy_their_schemas(world: World) -> None:
    for table, frame in ((PAIRWISE_FEATURES, world.features), (MERGE_LABELS, world.labels)):
        for _, part in frame.group_by(table.partition):
            table.validated(part.drop(table.partition), where="test")


def test_both_orientations_with_mirrored_actions(world: World) -> None:
    rows = training_rows(world.features, world.labels, actions=world.actions, item_set="A")
    merges = world.labels.select("a", "b", "task").unique().height
    assert len(rows) == 2 * merges
    label = world.labels.filter(pl.col("item_set") == "A").row(4, named=True)
    value = {
        (r["a"], r["b"], r["action"]): r["utility"]
        for r in world.labels.filter((pl.col("item_set") == "A") & (pl.col("task") == label["task"])).to_dicts()
    }
    index = {(r["a"], r["b"]): i for i, r in enumerate(rows.meta.to_dicts()) if r["task"] == label["task"]}
    a, b = label["a"], label["b"]
    straight, turned = rows.utilities[index[a, b]], rows.utilities[index[b, a]]
    np.testing.assert_allclose(straight, [value[a, b, s] for s in ACTIONS])
    np.testing.assert_allclose(turned, [value[a, b, s] for s in ("linear@0.5", "slerp@0.7", "slerp@0.3")])
    assert rows.features.row(index[b, a], named=True)["a"] == b


def test_labels_that_are_already_mirrored_change_nothing(world: World) -> None:
    mirror = {"linear@0.5": "linear@0.5", "slerp@0.3": "slerp@0.7", "slerp@0.7": "slerp@0.3"}
    turned = world.labels.with_columns(
        pl.col("b").alias("a"), pl.col("a").alias("b"), pl.col("action").replace_strict(mirror)
    )
    once = training_rows(world.features, world.labels, actions=ACTIONS)
    twice = training_rows(
        world.features, pl.concat([turned, world.labels]).sample(fraction=1, shuffle=True, seed=1), actions=ACTIONS
    )
    assert once.fingerprint == twice.fingerprint


def test_means_over_seeds_then_sets_then_benchmarks(world: World) -> None:
    one = world.labels.filter(pl.col("item_set") == "A").head(3)
    frames = []
    plan = {  # (benchmark, item_set, seed): utility
        ("x", "A", 0): 0.1, ("x", "A", 1): 0.3, ("x", "B", 0): 0.6, ("y", "A", 0): 1.0, ("y", "B", 0): 0.8,
    }  # fmt: skip
    for (benchmark, item_set, seed), utility in plan.items():
        frames.append(
            one.with_columns(
                pl.lit(benchmark).alias("benchmark"),
                pl.lit(item_set).alias("item_set"),
                pl.lit(seed, dtype=pl.Int64).alias("seed"),
                pl.lit(utility).alias("utility"),
            )
        )
    labels = pl.concat(frames)
    both = training_rows(world.features, labels, actions=ACTIONS, item_set=("A", "B"))
    x, y = ((0.1 + 0.3) / 2 + 0.6) / 2, (1.0 + 0.8) / 2
    np.testing.assert_allclose(both.utilities, (x + y) / 2)
    # Without B of benchmark y, the mean would be over other items for it: the pair is left out.
    with pytest.raises(SelectionError, match="No pair has both"):
        training_rows(
            world.features,
            labels.filter((pl.col("benchmark") != "y") | (pl.col("item_set") == "A")).filter(
                pl.col("benchmark") == "y"
            ),
            actions=ACTIONS,
            item_set=("A", "B"),
        )


def test_blend_of_two_metrics(world: World) -> None:
    probability = world.labels.with_columns(pl.lit("probability").alias("metric"), pl.lit(0.5).alias("utility"))
    labels = pl.concat([world.labels, probability])
    plain = training_rows(world.features, labels, actions=ACTIONS)
    mixed = training_rows(world.features, labels, actions=ACTIONS, blend=0.25)
    only = training_rows(world.features, labels, actions=ACTIONS, metric="probability")
    np.testing.assert_allclose(mixed.utilities, 0.75 * plain.utilities + 0.25 * 0.5)
    np.testing.assert_allclose(only.utilities, 0.5)


def test_incomplete_pairs_and_pairs_without_features_are_counted(world: World) -> None:
    a, b, task = (
        world.labels.row(0, named=True)["a"],
        world.labels.row(0, named=True)["b"],
        world.labels.row(0, named=True)["task"],
    )
    this = (pl.col("a") == a) & (pl.col("b") == b) & (pl.col("task") == task)
    holes = world.labels.filter(~(this & (pl.col("action") == "slerp@0.3")))
    rows = training_rows(world.features, holes, actions=ACTIONS)
    assert rows.dropped == {"no_features": 0, "incomplete": 2}
    rows = training_rows(world.features.filter(~this), world.labels, actions=ACTIONS)
    assert rows.dropped == {"no_features": 1, "incomplete": 0}


def test_a_pair_in_two_splits_is_refused(world: World) -> None:
    first = world.labels.row(0, named=True)
    this = (pl.col("a") == first["a"]) & (pl.col("b") == first["b"]) & (pl.col("task") == first["task"])
    other = "test" if first["split"] != "test" else "train"
    moved = world.labels.with_columns(pl.when(this).then(pl.lit(other)).otherwise("split").alias("split"))
    with pytest.raises(SelectionError, match=first["a"]):
        training_rows(world.features, moved, actions=ACTIONS)


def test_split_by_checkpoint_and_by_task_never_share_a_pair(world: World) -> None:
    rows = training_rows(world.features, world.labels, actions=ACTIONS)
    folds = checkpoint_folds(rows.meta, 3)
    assert sorted(c for fold in folds for c in fold) == sorted(world.domains)
    for fold in folds:
        assert {world.domains[c] for c in fold} == set(world.domains.values())
        again = rows.with_split(checkpoint_split(rows.meta, fold))
        refuse_leaks(again.meta)
        seen = again.of_split("train", "validation").meta
        assert not set(fold) & (set(seen["a"]) | set(seen["b"]))
    again = rows.with_split(task_split(rows.meta, "math"))
    refuse_leaks(again.meta)
    assert "math" not in again.of_split("train", "validation").meta["task"].to_list()
    assert set(again.of_split("test").meta["task"]) == {"math"}
    with pytest.raises(SelectionError, match="nowhere"):
        task_split(rows.meta, "nowhere")
    with pytest.raises(SelectionError, match="nobody"):
        checkpoint_split(rows.meta, ["nobody"])


def test_folds_and_drawn_validation_keep_pairs_together(world: World) -> None:
    rows = training_rows(world.features, world.labels, actions=ACTIONS)
    pairs = pair_ids(rows.meta)
    folds = pair_folds(pairs, 4, seed=1)
    mask = validation_mask(rows.meta.with_columns(pl.lit("train").alias("split")))
    for pair in np.unique(pairs):
        assert len(set(folds[pairs == pair])) == 1
        assert len(set(mask[pairs == pair])) == 1
    assert mask.any()
    assert not mask.all()


def test_a_label_that_is_no_number_is_refused_by_pair_and_action() -> None:
    world = make_world(per_domain=2)
    place = world.labels.row(0, named=True)
    labels = world.labels.with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(float("nan")).otherwise(pl.col("utility")).alias("utility")
    )
    with pytest.raises(SelectionError, match=rf"{place['a']}.*under.*{place['task']} is not a finite number"):
        training_rows(world.features, labels, actions=world.actions, item_set=place["item_set"])
