"""GapClosed with intervals, and differences of it in points (§3.4): of each task's mean scores, then macro-averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
"""From weights (d, r) to values (d,), as `bootstrap.interval` takes it."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """References of r rows with p parts each.

    Attributes
    ----------
    tasks
        Task of each place, (r, p).
    expert, auxiliary
        Scores that GapClosed is measured between, (r, p).
    min_gap
        A task is left out of a draw where its expert and auxiliary are closer than this.
    """

    tasks: np.ndarray
    expert: np.ndarray
    auxiliary: np.ndarray
    min_gap: float

    def macro(self, values: np.ndarray) -> Statistic:
        """GapClosed of utilities (r, p), percent, mean over tasks; NaN where no task is left."""
        places = [self.tasks == task for task in np.unique(self.tasks)]

        def statistic(weights: np.ndarray) -> np.ndarray:
            parts = []
            for where in places:
                total = weights @ where.sum(axis=1)
                safe = np.where(total > 0, total, 1.0)
                mean, expert, auxiliary = (
                    weights @ np.where(where, v, 0.0).sum(axis=1) / safe for v in (values, self.expert, self.auxiliary)
                )
                gap = expert - auxiliary
                good = (total > 0) & (np.abs(gap) >= self.min_gap)
                parts.append(np.where(good, 100.0 * (mean - auxiliary) / np.where(good, gap, 1.0), np.nan))
            stacked = np.stack(parts)
            count = np.isfinite(stacked).sum(axis=0)
            return np.where(count > 0, np.nansum(stacked, axis=0) / np.maximum(count, 1), np.nan)

        return statistic

    def points(self, values: np.ndarray, reference: np.ndarray) -> Statistic:
        """GapClosed of one method minus that of another, in points."""
        first, second = self.macro(values), self.macro(reference)

        def statistic(weights: np.ndarray) -> np.ndarray:
            return first(weights) - second(weights)

        return statistic
