"""Coverage of labelled merges by the other folds' errors, against plain loops over small arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simmerge_core.operators.actions import parse_action
from simmerge_core.selector import TrainingRows
from simmerge_core.selector.coverage import out_of_fold_coverage

Merge = tuple[str, str, str]


def _rows(pairs: list[Merge], utilities: np.ndarray) -> TrainingRows:
    meta = pl.DataFrame(pairs, schema=["a", "b", "task"], orient="row").with_columns(
        kind=pl.lit("expert_auxiliary"), split=pl.lit("train"), a_domain=pl.lit("math"), b_domain=pl.lit("code")
    )
    actions = tuple(parse_action(f"slerp@{0.1 * (i + 1):.1f}") for i in range(utilities.shape[1]))
    return TrainingRows(meta.select("task", "a", "b"), utilities, meta, actions)


def _half_width(errors: list[tuple[float, float, float]], spread: float, level: float, adaptive: bool) -> float:
    """From (error, spread, weight) of the known merges to the half-width at a spread."""
    if not adaptive:
        errors, spread = [(e, 0.0, w) for e, _, w in errors], 0.0
    total = sum(w for _, _, w in errors)
    square = sum(w * e * e for e, _, w in errors) / total
    known = sum(w * s * s for _, s, w in errors) / total
    floor = max(1e-9, math.sqrt(max(square - known, 0.01 * square)))
    scores = sorted((abs(e) / math.hypot(floor, s), w) for e, s, w in errors)
    quantile, below = scores[-1][0], 0.0
    for score, w in scores:
        below += w
        if below >= level * (1.0 + total) - 1e-9:
            quantile = score
            break
    return quantile * math.hypot(floor, spread)


def _by_loops(
    pairs: list[Merge], utilities: np.ndarray, members: np.ndarray, folds: list[int], level: float, adaptive: bool
) -> dict[str, float]:
    merge = [(frozenset((a, b)), task) for a, b, task in pairs]
    weight = [1.0 / merge.count(m) for m in merge]
    count, actions = utilities.shape

    def judged(i: int, column: int) -> tuple[float, float, float]:
        """Error and spread under an action; the last column is the chosen one's."""
        predicted = [members[folds[i]][i][j] for j in range(actions)]
        j = predicted.index(max(predicted)) if column == actions else column
        voices = [members[m][i][j] for m in range(len(members))]
        middle = sum(voices) / len(voices)
        spread = math.sqrt(sum((v - middle) ** 2 for v in voices) / len(voices))
        return utilities[i][j] - predicted[j], spread, weight[i]

    every = chosen = width = 0.0
    for i in range(count):
        touched = {merge[j] for j in range(count) if folds[j] == folds[i]}
        known = [j for j in range(count) if merge[j] not in touched]
        for column in range(actions + 1):
            error, spread, w = judged(i, column)
            half = _half_width([judged(j, column) for j in known], spread, level, adaptive)
            if column == actions:
                chosen += w * (abs(error) <= half)
            else:
                every += w * (abs(error) <= half) / actions
                width += w * half / actions
    total = sum(weight)
    return {"every_action": every / total, "chosen_action": chosen / total, "mean_half_width": width / total}


def _world(seed: int, *, twice: bool) -> tuple[list[Merge], np.ndarray, np.ndarray, list[int]]:
    """Merges in one or two orientations, on one or two tasks; with `twice`, two networks held each out."""
    rng = np.random.default_rng(seed)
    pairs: list[Merge] = []
    folds: list[int] = []
    for number in range(9):
        a, b, task = f"x{number % 4}", f"y{number}", "math" if number % 3 else "code"
        orientations = [(a, b, task), (b, a, task)] if number % 2 else [(a, b, task)]
        for fold in [number % 3, (number + 1) % 3] if twice and number < 4 else [number % 3]:
            pairs += orientations
            folds += [fold] * len(orientations)
    utilities = rng.normal(size=(len(pairs), 3))
    members = utilities + rng.normal(size=(3, len(pairs), 3))
    return pairs, utilities, members, folds


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.booleans(), st.booleans(), st.sampled_from([0.5, 0.7, 0.9]))
def test_equals_loops_over_merges(seed: int, twice: bool, adaptive: bool, level: float) -> None:
    pairs, utilities, members, folds = _world(seed, twice=twice)
    found = out_of_fold_coverage(_rows(pairs, utilities), members, np.array(folds), level=level, adaptive=adaptive)
    expected = _by_loops(pairs, utilities, members, folds, level, adaptive)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


def _three_merges(**options: Any) -> dict[str, float]:
    pairs = [("x", "y", "t"), ("x", "z", "t"), ("y", "z", "t")]
    utilities = np.array([[0.1], [0.2], [0.4]])
    return out_of_fold_coverage(_rows(pairs, utilities), np.zeros((2, 3, 1)), np.array([0, 1, 1]), **options)


def test_three_merges_by_hand() -> None:
    """Errors .1 | .2, .4: the first is held by the largest of the others, these are not by the first."""
    found = _three_merges(level=0.9)
    assert found == pytest.approx(
        {"every_action": 1 / 3, "chosen_action": 1 / 3, "mean_half_width": (0.4 + 0.1 + 0.1) / 3}
    )


def test_a_merge_with_two_rows_counts_once() -> None:
    pairs = [("x", "y", "t"), ("y", "x", "t"), ("x", "z", "t"), ("y", "z", "t")]
    utilities = np.array([[0.1], [0.1], [0.2], [0.4]])
    found = out_of_fold_coverage(_rows(pairs, utilities), np.zeros((2, 4, 1)), np.array([0, 0, 1, 1]), level=0.9)
    assert found == pytest.approx(_three_merges(level=0.9))
