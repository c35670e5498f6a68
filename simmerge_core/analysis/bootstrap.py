"""Percentile intervals from a bootstrap that resamples checkpoints, not pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % percentile interval; `low` and `high` are None where too few draws define the figure."""

    value: float | None
    low: float | None
    high: float | None
    defined: float

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: value, ci95, and the share of draws on which the figure was defined."""
        return {"value": self.value, "ci95": [self.low, self.high], "share_of_draws_defined": self.defined}


def cluster_weights(clusters: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Weights of rows under resampling of the checkpoints they belong to, (draws, r) float64.

    Parameters
    ----------
    clusters
        Checkpoints of each row, (r, c). With c = 1 a row's weight is the number of times that its checkpoint was drawn.
        With c = 2 it is the product of both numbers (the pigeonhole bootstrap, Owen 2007): both parents carry the row's
        dependence, and the interval errs on the wide side.
    """
    names, index = np.unique(clusters, return_inverse=True)
    index = index.reshape(clusters.shape)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=draws)
    return drawn[:, index].astype(np.float64).prod(axis=2)


def interval(statistic: Callable[[np.ndarray], np.ndarray], weights: np.ndarray) -> Interval:
    """The statistic on the rows as they are, with its 95 % interval over the draws.

    Parameters
    ----------
    statistic
        Maps weights (d, r) to values (d,), NaN where it is undefined.
    weights
        As `cluster_weights` returns them. The interval is given where at least half of the draws define the statistic.
    """
    value = float(statistic(np.ones((1, weights.shape[1])))[0])
    values = statistic(weights)
    finite = values[np.isfinite(values)]
    defined = len(finite) / len(values)
    point = value if np.isfinite(value) else None
    if defined < 0.5:
        return Interval(point, None, None, defined)
    low, high = np.quantile(finite, [0.025, 0.975])
    return Interval(point, float(low), float(high), defined)


def weighted_mean(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Statistic: the mean of row values."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1)
        return np.divide(weights @ values, total, out=np.full(len(total), np.nan), where=total > 0)

    return statistic


def ratio_of_means(
    numerator: np.ndarray, denominator: np.ndarray, *, least: float = 1e-9
) -> Callable[[np.ndarray], np.ndarray]:
    """Statistic: mean of one row value over the mean of another, undefined where the latter is below `least`."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1)
        safe = np.where(total > 0, total, 1.0)
        below = np.where(total > 0, weights @ denominator / safe, 0.0)
        return np.divide(weights @ numerator / safe, below, out=np.full(len(total), np.nan), where=below > least)

    return statistic
