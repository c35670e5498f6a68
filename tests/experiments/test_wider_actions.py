"""Forward selection, MIN-GapClosed and GapClosed points against plain loops."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from experiments_world import WorldData
from hypothesis import given
from hypothesis import strategies as st

from simmerge_core.analysis.bootstrap import interval
from simmerge_core.analysis.gaps import Gaps
from simmerge_core.errors import SelectionError
from simmerge_core.experiments.comparison import SIMMERGE, compare
from simmerge_core.experiments.minimum import least_gap
from simmerge_core.metrics import gap_closed
from simmerge_core.selector.forward_selection import forward_selection

ACTIONS = ("linear@0.5", "slerp@0.5", "ties@0.5", "slerp@0.3", "slerp@0.7")


def _worth(first: np.ndarray, second: np.ndarray, columns: list[int]) -> float:
    total = 0.0
    for x, y in ((first, second), (second, first)):
        for seen, scored in zip(x[:, columns], y[:, columns], strict=True):
            total += np.mean([s for v, s in zip(seen, scored, strict=True) if v == seen.max()])
    return total / (2 * len(first))


@given(st.integers(0, 2**31))
def test_each_step_adds_the_group_that_helps_most(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = {s: np.round(rng.normal(size=(12, 5)), 1) for s in "AB"}
    steps = forward_selection(tables, ACTIONS, most=5)
    at = {a: i for i, a in enumerate(ACTIONS)}
    chosen: list[str] = []
    groups = [("linear@0.5",), ("slerp@0.5",), ("ties@0.5",), ("slerp@0.3", "slerp@0.7")]
    for number, step in enumerate(steps):
        open_groups = [g for g in groups if not set(g) <= set(chosen) and (number or len(g) == 1)]
        best = max(_worth(tables["A"], tables["B"], [at[a] for a in (*chosen, *g)]) for g in open_groups)
        chosen += step.added
        assert step.utility == pytest.approx(best)
        assert _worth(tables["A"], tables["B"], [at[a] for a in chosen]) == pytest.approx(step.utility)
    assert all(later.utility > earlier.utility for earlier, later in pairwise(steps))
    assert len({"slerp@0.3", "slerp@0.7"} & set(chosen)) in (0, 2)


def test_no_more_than_asked_for_and_bad_input_by_name() -> None:
    rng = np.random.default_rng(0)
    tables = {s: rng.normal(size=(50, 5)) for s in "AB"}
    assert sum(len(step.added) for step in forward_selection(tables, ACTIONS, most=2)) <= 2
    with pytest.raises(SelectionError, match="two item sets, not 1"):
        forward_selection({"A": tables["A"]}, ACTIONS, most=2)
    with pytest.raises(SelectionError, match=r"dare@0\.5"):
        forward_selection(tables, ACTIONS, most=2, start=["dare@0.5"])


def test_points_are_differences_of_gap_closed() -> None:
    rng = np.random.default_rng(3)
    tasks = rng.choice(["x", "y", "z"], size=(40, 2))
    values, other = rng.uniform(0.3, 0.6, (40, 2)), rng.uniform(0.3, 0.6, (40, 2))
    expert, auxiliary = rng.uniform(0.7, 0.8, (40, 2)), rng.uniform(0.1, 0.2, (40, 2))
    gaps = Gaps(tasks, expert, auxiliary, 0.02)

    def macro(v: np.ndarray) -> float:
        means = [
            gap_closed(v[tasks == t].mean(), expert[tasks == t].mean(), auxiliary[tasks == t].mean(), min_gap=0.02)
            for t in "xyz"
        ]
        return float(np.mean([m for m in means if m is not None]))

    ones = np.ones((1, 40))
    assert gaps.macro(values)(ones)[0] == pytest.approx(macro(values))
    assert interval(gaps.points(values, other), ones).value == pytest.approx(macro(values) - macro(other))


def test_a_task_without_a_gap_is_left_out() -> None:
    tasks = np.array([["x"], ["y"]])
    gaps = Gaps(tasks, np.array([[0.8], [0.5]]), np.array([[0.2], [0.49]]), 0.02)
    assert gaps.macro(np.array([[0.5], [0.9]]))(np.ones((1, 2)))[0] == pytest.approx(50.0)
    assert np.isnan(gaps.macro(np.array([[0.5], [0.9]]))(np.array([[0.0, 1.0]]))[0])


def test_the_worse_task_counts(data: WorldData) -> None:
    units = data.units("extended", "both_tasks")
    direction = data.along[0]
    truth = {direction: units.utilities[direction.chosen_on]}
    section, _, _ = compare(data, units, {SIMMERGE: truth}, along=[direction])
    seen, scored = direction.chosen_on, direction.scored_on
    expected = []
    for i in np.flatnonzero(units.split == "test"):
        gaps = {
            s: [
                min(
                    gap_closed(units.utilities[s][i, p, m], units.expert[s][i, p], units.auxiliary[s][i, p])
                    for p in range(2)
                )
                for m in range(len(units.actions))
            ]
            for s in (seen, scored)
        }
        expected.append(gaps[scored][int(np.argmax(gaps[seen]))])
    assert section["minimum"]["min_gap_closed"][SIMMERGE]["value"] == pytest.approx(np.mean(expected))
    assert section["minimum"]["min_gap_closed"]["oracle"]["value"] == pytest.approx(np.mean(expected))
    assert least_gap(units, units.utilities[seen], seen, min_gap=0.02).shape == (len(units), len(units.actions))


def test_sets_are_compared_on_the_same_pairs(data: WorldData) -> None:
    units = [data.units(name, "both_tasks") for name in ("paper", "extended", "wide")]
    for first, second in combinations(units, 2):
        assert (first.a == second.a).all()
        assert (first.b == second.b).all()
