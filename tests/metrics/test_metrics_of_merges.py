"""The formulas of §3.4 against exact fractions, their guards, and what must hold for any scores."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from simmerge_core.errors import TableError
from simmerge_core.metrics import MIN_GAP, auxiliary_score, delta_aux, delta_expert, gap_closed, macro_average

scores = st.integers(0, 1000).map(lambda n: n / 1000)


def exact(top: float, bottom: float) -> float:
    return float(100 * Fraction(top) / Fraction(bottom))


@given(scores, scores, scores)
def test_against_exact_fractions(score: float, expert: float, auxiliary: float) -> None:
    if expert:
        assert delta_expert(score, expert) == pytest.approx(exact(score - expert, expert), rel=1e-12, abs=1e-12)
    else:
        assert delta_expert(score, expert) is None
    if auxiliary:
        assert delta_aux(score, auxiliary) == pytest.approx(exact(score - auxiliary, auxiliary), rel=1e-12, abs=1e-12)
    else:
        assert delta_aux(score, auxiliary) is None
    closed = gap_closed(score, expert, auxiliary)
    if abs(expert - auxiliary) >= MIN_GAP:
        assert closed == pytest.approx(exact(score - auxiliary, expert - auxiliary), rel=1e-12, abs=1e-12)
    else:
        assert closed is None


@given(scores, scores)
def test_ends_of_the_gap(expert: float, auxiliary: float) -> None:
    assume(abs(expert - auxiliary) >= MIN_GAP)
    assert gap_closed(auxiliary, expert, auxiliary) == 0.0
    assert gap_closed(expert, expert, auxiliary) == 100.0


@given(scores, scores, scores, st.floats(0.1, 10), st.floats(-5, 5))
def test_gap_closed_is_free_of_scale_and_origin(
    score: float, expert: float, auxiliary: float, scale: float, origin: float
) -> None:
    assume(abs(expert - auxiliary) >= 0.05)
    before = gap_closed(score, expert, auxiliary)
    after = gap_closed(score * scale + origin, expert * scale + origin, auxiliary * scale + origin, min_gap=0.0)
    assert before is not None
    assert after == pytest.approx(before, rel=1e-6, abs=1e-6)


@given(st.lists(st.tuples(scores, scores, scores), min_size=1, max_size=8))
def test_arrays_and_expressions_agree_with_numbers(rows: list[tuple[float, float, float]]) -> None:
    score, expert, auxiliary = (np.array(column) for column in zip(*rows, strict=True))
    frame = pl.DataFrame({"score": score, "expert": expert, "aux": auxiliary})
    columns = pl.col("score"), pl.col("expert"), pl.col("aux")
    for of_numbers, of_array, of_expression in (
        ([delta_expert(s, e) for s, e, _ in rows], delta_expert(score, expert), delta_expert(*columns[:2])),
        ([delta_aux(s, a) for s, _, a in rows], delta_aux(score, auxiliary), delta_aux(columns[0], columns[2])),
        ([gap_closed(*row) for row in rows], gap_closed(score, expert, auxiliary), gap_closed(*columns)),
    ):
        assert isinstance(of_array, np.ndarray)
        assert isinstance(of_expression, pl.Expr)
        assert [None if math.isnan(v) else v for v in of_array.tolist()] == of_numbers
        assert frame.select(of_expression.alias("x"))["x"].to_list() == of_numbers


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_give_nothing(bad: float) -> None:
    assert gap_closed(bad, 0.9, 0.1) is None
    assert gap_closed(0.5, bad, 0.1) is None
    assert delta_expert(0.5, math.nan) is None


def test_negative_gaps_stay_in() -> None:
    assert gap_closed(0.4, 0.3, 0.5) == pytest.approx(50.0)


def test_unfit_min_gap() -> None:
    with pytest.raises(TableError, match="min_gap"):
        gap_closed(0.5, 0.6, 0.4, min_gap=-1)


def test_auxiliary_baseline_is_the_mean() -> None:
    assert auxiliary_score([0.25, 0.5]) == 0.375
    with pytest.raises(TableError, match="auxiliary"):
        auxiliary_score([])


def test_macro_average_counts_tasks_alike_and_says_what_is_left_out() -> None:
    frame = pl.DataFrame({"task": ["a", "a", "a", "b", "c"], "x": [10.0, 20.0, None, 60.0, None]})
    average = macro_average(frame, "x")
    assert average.value == (15.0 + 60.0) / 2
    assert (average.tasks, average.rows, average.excluded) == (2, 3, 2)
    assert macro_average(frame.clear(), "x").value is None


@given(st.permutations([("a", 0.1), ("a", 0.7), ("b", 0.3), ("c", 0.9), ("c", 0.2)]))
def test_macro_average_does_not_depend_on_order(rows: list[tuple[str, float]]) -> None:
    frame = pl.DataFrame(rows, schema=["task", "x"], orient="row")
    assert macro_average(frame, "x").value == pytest.approx((0.4 + 0.3 + 0.55) / 3, rel=1e-15)
