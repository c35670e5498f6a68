"""How likely each arm is to be drawn: exact probabilities of Thompson sampling, which off-policy evaluation needs."""

from __future__ import annotations

from functools import cache

import numpy as np

_REACH = np.array([-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.5, 8.0])
_NODES = 10


@cache
def _gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(_NODES)


def probability_of_best(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """P(arm a has the highest draw) for independent draws N(mean, deviation²).

    P(a) = ∫ fₐ(v) Π_{b ≠ a} F_b(v) dv, by Gauss–Legendre between marks at −8 … 8 deviations of every
    arm, without those within the least deviation of another; errors stay below 1e-10, and 1e-8 where deviations
    differ by more than 1e8.

    Parameters
    ----------
    mean, deviation
        (K,) float64; deviations at least 0. Arms without deviation are points, and equal best points share alike.

    Returns
    -------
    (K,) float64, summing to 1.
    """
    from scipy.special import ndtr

    mean, deviation = np.asarray(mean, dtype=np.float64), np.asarray(deviation, dtype=np.float64)
    mean = mean - mean.max()  # what decides lies near the best mean: there the finest deviations are resolved
    deviation = np.where(deviation < -1e-10 * mean, 0.0, deviation)  # a number elsewhere does not hold so fine a one
    highest = float(mean[deviation == 0.0].max()) if (deviation == 0.0).any() else -np.inf
    points = (deviation == 0.0) & (mean == highest)
    spread = deviation > 0.0
    out = np.zeros(len(mean))
    if not spread.any():
        return points / points.sum()
    m, s = mean[spread], deviation[spread]
    # Below the whole range of some arm nothing can be the highest.
    floor = max(highest, float((m + _REACH[0] * s).max()))
    spread[spread] = alive = m + _REACH[-1] * s > floor
    m, s = m[alive], s[alive]
    if not len(m):
        return points / points.sum()
    marks = (m[:, None] + s[:, None] * _REACH).ravel()
    marks = np.sort(marks[marks > floor])
    cell = np.floor((marks - floor) / s.min())  # marks within the least deviation of one another say the same
    marks = np.concatenate([[floor], marks[np.append(cell[1:] != cell[:-1], True)]])  # the last one of each cell
    if np.isfinite(highest):
        out[points] = np.prod(ndtr((highest - m) / s)) / points.sum()
    nodes, weights = _gauss_legendre()
    half = 0.5 * np.diff(marks)
    v = (marks[:-1, None] + half[:, None] * (nodes + 1.0)).ravel()
    u = (v - m[:, None]) / s[:, None]  # (K', n)
    below = ndtr(u)
    ahead, behind = np.ones_like(below), np.ones_like(below)
    np.cumprod(below[:-1], axis=0, out=ahead[1:])
    np.cumprod(below[:0:-1], axis=0, out=behind[-2::-1])
    ahead *= behind
    u *= u
    u *= -0.5
    ahead *= np.exp(u, out=u)  # the densities, but for their scale
    w = (half[:, None] * weights).ravel()
    out[spread] = np.einsum("kn,n->k", ahead, w) / (np.sqrt(2.0 * np.pi) * s)
    return out / out.sum()
