"""Conformal quantiles and bands against hand computations and their promise of coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simmerge_core.selector.conformal import Band, conformal_quantile
from simmerge_core.selector.prediction_errors import Errors


def test_quantile_by_hand() -> None:
    scores = np.array([0.3, 0.1, 0.9, 0.2, 0.5, 0.4, 0.8, 0.7, 0.6])  # n = 9: rank ⌈10 · level⌉
    assert conformal_quantile(scores, level=0.9) == 0.9
    assert conformal_quantile(scores, level=0.8) == 0.8
    assert conformal_quantile(scores, level=0.75) == 0.8
    assert conformal_quantile(scores, level=0.1) == 0.1
    assert conformal_quantile(scores, level=0.99) == 0.9  # nine errors cannot promise more
    # Two rows of one merge weigh what one row of another does: rank ⌈4 · 0.5⌉ = 2 of three merges.
    merged = conformal_quantile(np.array([1.0, 2.0, 3.0, 4.0]), level=0.5, weights=np.array([1.0, 0.5, 0.5, 1.0]))
    assert merged == 3.0


@given(
    st.lists(st.floats(0.0, 10.0), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
)
def test_quantile_is_the_order_statistic_of_split_conformal(values: list[float], level: float) -> None:
    rank = math.ceil((len(values) + 1) * level - 1e-9)
    expected = sorted(values)[min(rank, len(values)) - 1]
    assert conformal_quantile(np.array(values), level=level) == expected
    # Every merge twice at half the weight is the same set of merges.
    twice = conformal_quantile(np.repeat(values, 2), level=level, weights=np.full(2 * len(values), 0.5))
    assert twice == expected


def test_band_by_hand() -> None:
    errors = Errors(np.array([3.0, -1.0, 2.0]), np.array([1.0, 1.0, 0.0]), np.ones(3))
    band = Band.fit(errors, level=0.5)
    floor = math.sqrt(14.0 / 3.0 - 2.0 / 3.0)  # 2
    assert band.floor == pytest.approx(floor)
    scores = sorted([3.0 / math.sqrt(5.0), 1.0 / math.sqrt(5.0), 2.0 / 2.0])
    assert band.quantile == pytest.approx(scores[1])
    assert (band.merges, band.level) == (3, 0.5)
    assert Band.fit(errors, level=0.9).level == 0.75
    np.testing.assert_allclose(band.half_width(np.array([[0.0, 1.5]])), [[1.0 * 2.0, 1.0 * 2.5]])


def test_perfect_predictions_have_a_band_too() -> None:
    band = Band.fit(Errors(np.zeros(5), np.zeros(5), np.ones(5)), level=0.9)
    assert band.half_width(np.array(0.3)) == 0.0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.8, 0.9]))
def test_coverage_of_exchangeable_errors(seed: int, level: float) -> None:
    """Over many draws of calibration and test errors together the share inside is the level, up to chance."""
    rng = np.random.default_rng(seed)
    trials, n = 600, 39
    inside = 0
    for _ in range(trials):
        spread = rng.uniform(0.1, 2.0, n + 1)
        error = rng.standard_t(4, n + 1) * np.sqrt(0.25 + spread**2)
        band = Band.fit(Errors(error[:n], spread[:n], np.ones(n)), level=level)
        inside += abs(error[n]) <= band.half_width(spread[n:])[0]
    # The quantile's rank promises between level and level + 1 / (n + 1); the floor is fitted to the same errors.
    low, high = level - 0.01, level + 1.0 / (n + 1) + 0.01
    assert trials * low - 5 * math.sqrt(trials * level) <= inside <= trials * high + 5 * math.sqrt(trials * level)


def test_intervals_widen_where_the_ensemble_disagrees() -> None:
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.0, 3.0, 4000)
    error = rng.normal(size=4000) * np.sqrt(0.04 + spread**2)
    half = Band.fit(Errors(error, spread, np.ones(4000)), level=0.9).half_width(spread)
    for part in (spread < 0.5, spread > 2.5):
        assert np.mean(np.abs(error[part]) <= half[part]) == pytest.approx(0.9, abs=0.04)
    assert half[spread > 2.5].mean() > 3.0 * half[spread < 0.5].mean()
