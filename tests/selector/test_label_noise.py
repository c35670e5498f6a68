"""Variance per item behind a utility: means over seeds and sets, sums over benchmarks, nothing where unknown."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from selector_world import World, make_world

from simmerge_core.selector import LabelNoise, noise_on, training_rows

ACTIONS = ("linear@0.5", "slerp@0.3", "slerp@0.7")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(per_domain=2, actions=ACTIONS, seed=3)


def test_two_benchmarks_and_two_sets_by_hand(world: World) -> None:
    second = world.labels.with_columns(
        (pl.col("benchmark") + "_more").alias("benchmark"), pl.lit(0.05).alias("stderr"), pl.lit(100).alias("n")
    )
    labels = pl.concat([world.labels, second], how="vertical_relaxed")
    rows = training_rows(world.features, labels, actions=ACTIONS, item_set=["A", "B"])
    assert rows.item_variance is not None
    assert rows.items is not None
    first, other = 200 * 0.01**2, 100 * 0.05**2
    # U = (mean of k items + mean of k items) / 2 has the variance (first + other) / (4 k).
    np.testing.assert_allclose(rows.item_variance, (first + other) / 4)
    np.testing.assert_allclose(rows.items, 150)


def test_noise_follows_the_mirrored_action(world: World) -> None:
    labels = world.labels.with_columns(
        pl.when(pl.col("action") == "slerp@0.3").then(0.02).otherwise(0.01).alias("stderr")
    )
    rows = training_rows(world.features, labels, actions=ACTIONS)
    assert rows.item_variance is not None
    straight = (rows.meta["a"] < rows.meta["b"]).to_numpy()
    loud, quiet = 200 * 0.02**2, 200 * 0.01**2
    np.testing.assert_allclose(rows.item_variance[straight], [[quiet, loud, quiet]] * straight.sum())
    np.testing.assert_allclose(rows.item_variance[~straight], [[quiet, quiet, loud]] * (~straight).sum())
    np.testing.assert_allclose(rows.with_actions(["slerp@0.3"]).item_variance[straight], loud)  # type: ignore[index]
    assert rows.of_split("test").item_variance.shape == rows.of_split("test").utilities.shape  # type: ignore[union-attr]


def test_a_label_without_standard_error_hides_its_utility_only(world: World) -> None:
    labels = world.labels.with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise(pl.col("stderr")).alias("stderr")
    )
    rows = training_rows(world.features, labels, actions=ACTIONS)
    assert rows.item_variance is not None
    assert np.isnan(rows.item_variance).sum() == 2  # both orientations of the one merge


def test_a_task_without_labels_takes_the_mean() -> None:
    known = {"math": LabelNoise(0.2, 100.0), "code": LabelNoise(0.1, 50.0)}
    assert noise_on("math", known) == known["math"]
    mean = noise_on("rag", known)
    assert mean is not None
    assert (mean.variance, mean.items) == (pytest.approx(0.15), 75.0)
    assert noise_on("rag", {}) is None
