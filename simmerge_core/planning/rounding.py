"""How far a ReLU network computed in float32 can be from the same network in exact arithmetic.

The standard model of rounding: every float32 operation is exact up to a factor 1 ± u with u = 2⁻²⁴, so a sum of n
products, in any order, is within γₙ · Σ |xᵢ wᵢ| of its value, γₙ = n u / (1 − n u). Errors of a layer's inputs pass
through |W|, and ReLU and clipping never enlarge an error. Magnitudes come from interval arithmetic over all inputs that
can occur. The bound holds for every input in the range; typical errors are a thousand times smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNIT = 2.0**-24  # rounding unit of float32
_SPARE = 3  # roundings per layer beside its sum: of its weights, of its bias, of the number itself


def gamma(terms: int) -> float:
    """γ: relative error of a float32 sum of this many products."""
    return terms * UNIT / (1.0 - terms * UNIT)


@dataclass(frozen=True, slots=True)
class Range:
    """What numbers of one layer can be.

    Attributes
    ----------
    low, high
        (…, n) float64 limits of the exact values.
    error
        (…, n) float64 ≥ 0: how far the computed values are from the exact ones at most.
    """

    low: np.ndarray
    high: np.ndarray
    error: np.ndarray

    def linear(self, weight: np.ndarray, bias: np.ndarray) -> Range:
        """Range of x W + b; weight (…, n, m), bias (…, m) in float64."""
        size = np.abs(weight)
        up, down = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
        largest = np.maximum(np.abs(self.low), np.abs(self.high)) + self.error
        rounding = gamma(weight.shape[-2] + _SPARE) * (_product(largest, size) + np.abs(bias))
        return Range(
            _product(self.low, up) + _product(self.high, down) + bias,
            _product(self.high, up) + _product(self.low, down) + bias,
            _product(self.error, size) + rounding,
        )

    def relu(self) -> Range:
        """Range of max(x, 0)."""
        return Range(np.maximum(self.low, 0.0), np.maximum(self.high, 0.0), self.error)


def _product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.matmul(x[..., None, :], weight)[..., 0, :]
