"""Merge quality relative to the expert and the auxiliary (§3.4): Δexpert, Δaux, GapClosed, macro averages.

Each of the first three takes plain numbers, NumPy arrays or Polars expressions. A value that its formula does not
define is missing, never infinite: ``None`` for plain numbers, NaN in arrays, null in expressions.

GapClosed divides by the gap between expert and auxiliary. Where the two are nearly equal the quotient says nothing
about the merge and can be as large as one likes, so a row whose ``|expert - auxiliary|`` is below `MIN_GAP` has no
GapClosed: it is left out of averages, and `macro_average` counts how many were. A negative gap (the auxiliary beats
the expert by more than `MIN_GAP`) is defined by the formula and stays in, as the paper does not exclude it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import polars as pl

from simmerge_core.errors import TableError

MIN_GAP = 0.02
"""Least |expert - auxiliary|, in units of the metric, for which GapClosed is given."""

Value = TypeVar("Value", float, np.ndarray, pl.Expr)


def _guarded(numerator: Any, denominator: Any, *, least: float) -> Any:
    """100 * numerator / denominator where |denominator| >= least (> 0), else missing; float64 throughout."""
    if isinstance(numerator, pl.Expr) or isinstance(denominator, pl.Expr):
        bottom = denominator if isinstance(denominator, pl.Expr) else pl.lit(denominator, dtype=pl.Float64)
        quotient = 100.0 * (numerator / bottom)
        defined = quotient.is_finite() & bottom.is_finite() & (bottom.abs() >= least) & (bottom != 0.0)
        return pl.when(defined).then(quotient).otherwise(None)
    tops, bottoms = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = 100.0 * (tops / bottoms)
        fine = np.isfinite(bottoms) & (np.abs(bottoms) >= least) & (bottoms != 0.0) & np.isfinite(values)
    if values.ndim == 0:
        return float(values) if fine else None
    return np.where(fine, values, np.nan)


def delta_expert(score: Value, expert: Value) -> Value | None:
    """Normalised change against the expert, ``100 (score - expert) / expert``, in percent (§3.4).

    Parameters
    ----------
    score, expert
        Task scores of the merged model and of the task's expert: numbers, arrays of one shape, or expressions.

    Returns
    -------
    Percent in the form of the inputs; missing where the expert's score is zero.
    """
    return cast("Value | None", _guarded(score - expert, expert, least=0.0))


def delta_aux(score: Value, auxiliary: Value) -> Value | None:
    """Normalised change against the auxiliary, ``100 (score - auxiliary) / auxiliary``, in percent (§3.4).

    For a multi-way merge `auxiliary` is the mean of its auxiliaries' scores (`auxiliary_score`). Missing where the
    auxiliary's score is zero.
    """
    return cast("Value | None", _guarded(score - auxiliary, auxiliary, least=0.0))


def gap_closed(score: Value, expert: Value, auxiliary: Value, *, min_gap: float = MIN_GAP) -> Value | None:
    """Share of the gap between auxiliary and expert that the merge recovers, in percent (§3.4).

    ``100 (score - auxiliary) / (expert - auxiliary)``: 0 is the auxiliary, 100 the expert; missing where
    ``|expert - auxiliary| < min_gap``.
    """
    if not min_gap >= 0:
        raise TableError(f"min_gap is {min_gap}, but it is a distance of scores: give a number that is not negative.")
    return cast("Value | None", _guarded(score - auxiliary, expert - auxiliary, least=min_gap))


def auxiliary_score(scores: Sequence[float]) -> float:
    """Auxiliary baseline of a merge: the unweighted mean over its auxiliary models (§3.4)."""
    if not scores:
        raise TableError("A merge without an auxiliary has no auxiliary baseline: give at least one score.")
    return float(np.mean(np.asarray(scores, np.float64)))


@dataclass(frozen=True, slots=True)
class MacroAverage:
    """An average over tasks, each counting alike, and how much of the data it speaks of.

    Attributes
    ----------
    value
        Mean over tasks of each task's mean; None when no task has a value.
    tasks, rows
        Tasks and rows that counted.
    excluded
        Rows left out because their value is missing (for GapClosed: expert ≈ auxiliary).
    """

    value: float | None
    tasks: int
    rows: int
    excluded: int


def macro_average(frame: pl.DataFrame, value: str, *, task: str = "task") -> MacroAverage:
    """Average column `value` within each task, then over tasks (§3.4), leaving missing values out and counting them."""
    column = pl.col(value).cast(pl.Float64)
    kept = frame.filter(column.is_not_null() & column.is_finite())
    means = kept.group_by(task).agg(column.mean().alias("mean")).sort(task)["mean"]
    average = float(np.mean(means.to_numpy())) if len(means) else None
    return MacroAverage(average, len(means), kept.height, frame.height - kept.height)
