"""Lengths and angles of two weight vectors from inner products of their task vectors (App. B.3).

With a = base + x, b = base + y and o the base, the products are ``aa`` = ⟨x, x⟩, ``bb`` = ⟨y, y⟩, ``ab`` = ⟨x, y⟩,
``ao`` = ⟨x, o⟩, ``bo`` = ⟨y, o⟩, ``oo`` = ⟨o, o⟩, all float64. Nothing is computed as a difference of large squares
where a difference of small ones says the same: 1 − cos of two fine-tunes is exact to many digits even at 10⁻⁹.

An intermediate of a plan that is linear in its inputs has such products too: products are bilinear.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl

ROUNDING = 1e-14
"""A squared length below this share of the squares it is the difference of is rounding, and counts as zero."""

FLOOR = 1e-6
"""Before a ratio or logarithm, a norm is raised to this share of the largest of the norms around it."""

Array = np.ndarray


class Geometry:
    """Lengths and angles of every row of a frame of products; all are float64 arrays with one value a row.

    Parameters
    ----------
    products
        Columns ``aa``, ``bb``, ``ab``, ``ao``, ``bo``, ``oo``, as of `similarity.pair_products`.
    """

    def __init__(self, products: pl.DataFrame) -> None:
        self._aa, self._bb, self._ab, self._ao, self._bo, self._oo = (
            products[name].to_numpy().astype(np.float64) for name in ("aa", "bb", "ab", "ao", "bo", "oo")
        )

    @cached_property
    def norm_a(self) -> Array:
        """‖a‖."""
        return _length(self._aa + 2 * self._ao + self._oo, self._aa + self._oo)

    @cached_property
    def norm_b(self) -> Array:
        """‖b‖."""
        return _length(self._bb + 2 * self._bo + self._oo, self._bb + self._oo)

    @cached_property
    def norm_base(self) -> Array:
        """‖base‖."""
        return np.sqrt(self._oo)

    @cached_property
    def task_norm_a(self) -> Array:
        """‖a − base‖."""
        return np.sqrt(self._aa)

    @cached_property
    def task_norm_b(self) -> Array:
        """‖b − base‖."""
        return np.sqrt(self._bb)

    @cached_property
    def l2(self) -> Array:
        """‖a − b‖."""
        return _length(self._aa - 2 * self._ab + self._bb, self._aa + self._bb)

    @cached_property
    def cosine(self) -> Array:
        """Cosine of a and b."""
        difference = self._aa - self._bb + 2 * (self._ao - self._bo)
        product = self._oo + self._ao + self._bo + self._ab
        return _cosine(self.l2, self.norm_a, self.norm_b, difference, product)

    @cached_property
    def task_cosine(self) -> Array:
        """Cosine of a − base and b − base."""
        return _cosine(self.l2, self.task_norm_a, self.task_norm_b, self._aa - self._bb, self._ab)

    @cached_property
    def l2_relative(self) -> Array:
        """‖a − b‖ over the geometric mean of ‖a‖ and ‖b‖, floored as in `log_ratio`; 0 at distance 0."""
        largest = self._largest(self.norm_a, self.norm_b)
        a, b = np.maximum(self.norm_a, FLOOR * largest), np.maximum(self.norm_b, FLOOR * largest)
        return np.where(self.l2 > 0, self.l2 / np.sqrt(np.where(largest > 0, a * b, 1.0)), 0.0)

    def log_ratio(self, x: Array, y: Array) -> Array:
        """Natural log of x / y, both raised to ``FLOOR`` times the largest norm around; 0 where all are zero."""
        largest = self._largest(self.norm_a, self.norm_b, x, y)
        safe = np.where(largest > 0, largest, 1.0)
        floored = [np.where(largest > 0, np.maximum(v, FLOOR * safe), 1.0) for v in (x, y)]
        return np.log(floored[0]) - np.log(floored[1])

    def relative_to_base(self, x: Array) -> Array:
        """x over ‖base‖, which is raised to ``FLOOR`` times x; 0 where x is 0."""
        return np.where(x > 0, x / np.where(x > 0, np.maximum(self.norm_base, FLOOR * x), 1.0), 0.0)

    def _largest(self, *norms: Array) -> Array:
        return np.maximum.reduce([self.norm_base, *norms])


def _length(square: Array, of: Array) -> Array:
    """Root of a square that is the difference of squares of sum `of`: zero where only rounding is left."""
    return np.sqrt(np.where(square > ROUNDING * of, square, 0.0))


def _cosine(distance: Array, a: Array, b: Array, square_difference: Array, product: Array) -> Array:
    """Cosine in [-1, 1]; 1 for two zero vectors (they are equal), 0 for one.

    Of near vectors (‖a − b‖² ≤ ‖a‖‖b‖) from their distance, ‖a‖‖b‖(1 − cos) = (‖a − b‖² − (‖a‖ − ‖b‖)²) / 2, of others
    from their product ⟨a, b⟩: each loses digits where the other does not. `square_difference` is ‖a‖² − ‖b‖², given
    apart because it is known better than the difference of the norms.
    """
    zeros = (a == 0).astype(int) + (b == 0)
    sums, norms = np.where(zeros == 0, a + b, 1.0), np.where(zeros == 0, a, 1.0) * np.where(zeros == 0, b, 1.0)
    one_minus = (distance**2 - (square_difference / sums) ** 2) / (2 * norms)
    cosine = np.clip(np.where(distance**2 <= norms, 1 - one_minus, product / norms), -1.0, 1.0)
    return np.choose(zeros, [cosine, np.zeros_like(cosine), np.ones_like(cosine)])
