"""Intervals: reproducible, clustered as they say, and equal to a plain resampling loop."""

from __future__ import annotations

import numpy as np
import pytest

from simmerge_core.analysis.bootstrap import cluster_weights, interval, ratio_of_means, weighted_mean


def test_weights_equal_a_resampling_loop() -> None:
    clusters = np.array([["x", "y"], ["x", "z"], ["y", "z"]])
    weights = cluster_weights(clusters, draws=200, seed=3)
    drawn = np.random.default_rng(3).multinomial(3, [1 / 3] * 3, size=200)
    for weight, counts in zip(weights, drawn, strict=True):
        sample = [name for name, count in zip("xyz", counts, strict=True) for _ in range(count)]
        want = [sum(p == a for p in sample) * sum(p == b for p in sample) for a, b in clusters]
        assert weight.tolist() == want
    np.testing.assert_array_equal(weights, cluster_weights(clusters, draws=200, seed=3))
    assert not np.array_equal(weights, cluster_weights(clusters, draws=200, seed=4))


def test_one_cluster_per_row_counts_its_draws() -> None:
    weights = cluster_weights(np.array([["x"], ["x"], ["y"]]), draws=50, seed=0)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
    np.testing.assert_array_equal(weights[:, 0] + weights[:, 2], 2)


def test_interval_is_the_percentiles_of_the_resampled_figure() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0.1, 1.0, 60)
    clusters = np.repeat([f"e{i}" for i in range(20)], 3)[:, None]
    weights = cluster_weights(clusters, draws=3000, seed=0)
    found = interval(weighted_mean(values), weights)
    by_expert = values.reshape(20, 3).sum(axis=1)
    names = np.unique(clusters)
    order = [int(name[1:]) for name in names]
    drawn = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=3000)
    reference = drawn @ by_expert[order] / (3 * drawn.sum(axis=1))
    assert found.value == pytest.approx(values.mean())
    assert [found.low, found.high] == pytest.approx(np.quantile(reference, [0.025, 0.975]).tolist())
    # Close to the theory for independent clusters, so that the width means what it says.
    spread = by_expert.std() / 3 / np.sqrt(20)
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_a_ratio_without_denominator_is_undefined() -> None:
    weights = cluster_weights(np.array([["x"], ["y"]]), draws=400, seed=0)
    nothing = interval(ratio_of_means(np.ones(2), np.zeros(2)), weights)
    assert nothing.as_dict() == {"value": None, "ci95": [None, None], "share_of_draws_defined": 0.0}
    half = interval(ratio_of_means(np.array([1.0, 0.0]), np.array([2.0, -1.9])), weights)
    assert half.value == pytest.approx(10.0)
    assert half.low is None or half.defined >= 0.5
    sure = interval(ratio_of_means(np.array([1.0, 2.0]), np.array([2.0, 4.0])), weights)
    assert (sure.value, sure.low, sure.high, sure.defined) == (0.5, 0.5, 0.5, 1.0)
