"""Merge and evaluate with a budget: the exact expectation against every possible draw."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from experiments_world import WorldData
from hypothesis import given
from hypothesis import strategies as st

from simmerge_core.experiments import budgets
from simmerge_core.experiments.budgets import best_of_drawn
from simmerge_core.experiments.experiment import Catalogs


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 6))
def test_equals_the_mean_over_all_draws(seed: int, actions: int, budget: int) -> None:
    rng = np.random.default_rng(seed)
    seen, scored = rng.integers(0, 3, size=(3, actions)) / 2.0, rng.normal(size=(3, actions))
    expected = []
    for x, y in zip(seen, scored, strict=True):
        draws = [
            y[max(draw, key=lambda i, x=x: (x[i], -i))] for draw in combinations(range(actions), min(budget, actions))
        ]
        expected.append(np.mean(draws))
    np.testing.assert_allclose(best_of_drawn(seen, scored, budget), expected, atol=1e-12)


def test_one_evaluation_of_the_predicted_best_is_the_prediction(data: WorldData) -> None:
    result = budgets.run(Catalogs(data), lambda message, fraction: None)
    for section in result.figures.values():
        assert section["utility"]["predicted best, evaluate 1"] == section["utility"]["predict, evaluate none"]
        assert section["utility"]["best on average, evaluate 1"] == section["utility"]["best fixed, evaluate none"]
        assert section["utility"]["random, evaluate 2"]["value"] > section["utility"]["random, evaluate 1"]["value"]
    assert "random, evaluate 5" in result.figures["wide"]["utility"]
    assert "random, evaluate 5" not in result.figures["paper"]["utility"]  # there are three to try


@pytest.mark.parametrize("budget", [1, 2])
def test_a_budget_never_exceeds_what_the_seen_items_promise(budget: int) -> None:
    seen = np.array([[0.1, 0.5, 0.9]])
    assert best_of_drawn(seen, seen, budget)[0] <= 0.9
    assert best_of_drawn(seen, seen, 3)[0] == pytest.approx(0.9)
