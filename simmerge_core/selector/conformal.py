"""Normalised conformal prediction: the law of one kind of error, and the half-widths that follow from it.

An error counts in units of s = √(floor² + σ²), where σ is the ensemble's standard deviation and floor what the ensemble
does not know about. The half-width of an interval at level 1 − α is s times the (1 − α)-quantile of these scores, with
the finite-sample correction n + 1 (Vovk, Gammerman & Shafer 2005; Lei et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simmerge_core.selector.prediction_errors import Errors

_LEAST_SHARE = 0.01  # of the mean squared error that the floor keeps even where the ensemble seems to explain it all
_TINY = 1e-9
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Band:
    """The law of one kind of error.

    Attributes
    ----------
    floor
        The part of the error that the ensemble's spread does not explain, in units of the metric.
    quantile
        Of the scores |error| / √(floor² + σ²).
    merges
        Independent errors behind the quantile.
    level
        Coverage that so many errors can promise: the one asked for, or merges / (merges + 1) where that is less.
    adaptive
        Whether σ counts; where it does not, it is taken for zero and all half-widths are the same.
    """

    floor: float
    quantile: float
    merges: int
    level: float
    adaptive: bool = True

    @classmethod
    def fit(cls, errors: Errors, *, level: float, adaptive: bool = True) -> Band:
        """Floor and quantile of observed errors."""
        spread = errors.spread if adaptive else np.zeros_like(errors.spread)
        total = float(np.sum(errors.weight))
        square = float(np.sum(errors.weight * errors.error**2)) / total
        known = float(np.sum(errors.weight * spread**2)) / total
        floor = max(_TINY, float(np.sqrt(max(square - known, _LEAST_SHARE * square))))
        scores = np.abs(errors.error) / np.sqrt(floor**2 + spread**2)
        merges = round(total)
        quantile = conformal_quantile(scores, level=level, weights=errors.weight)
        return cls(floor, quantile, merges, min(level, merges / (merges + 1)), adaptive)

    def half_width(self, spread: np.ndarray) -> np.ndarray:
        """Half-widths for the ensemble's standard deviations, of any shape."""
        counted = spread if self.adaptive else np.zeros_like(spread)
        return np.asarray(self.quantile * np.sqrt(self.floor**2 + counted**2))


def conformal_quantile(scores: np.ndarray, *, level: float, weights: np.ndarray | None = None) -> float:
    """The least score s such that the scores up to s weigh at least level · (1 + total weight).

    With unit weights this is the score of rank ⌈(n + 1) · level⌉, the finite-sample quantile of split conformal
    prediction. Where n is too small for the level, it is the largest score.
    """
    order = np.argsort(scores, kind="stable")
    below = np.cumsum(np.ones(len(scores)) if weights is None else weights[order])
    at = int(np.searchsorted(below, level * (1.0 + below[-1]) - _ROUNDING))
    return float(scores[order[min(at, len(scores) - 1)]])
