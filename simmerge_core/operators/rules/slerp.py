"""Spherical interpolation per tensor, rescaled to the mean input norm (App. A.2).

With unit vectors u, v at angle φ the direction is (sin((1−α)φ) u + sin(αφ) v) / sin φ. The weights are smooth functions
of cos φ, so three float64 sums determine them for the closest vectors too; there is no fallback threshold there.

Degenerate inputs: where the path is undefined (a zero vector, or opposite directions) the result is linear
interpolation. α = 0 gives a's direction with the mean norm, not a.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from simmerge_core.operators.operator import Block, Operator, Pass, Setting
from simmerge_core.operators.sums import inner_products

if TYPE_CHECKING:
    from torch import Tensor

# 1 + cos φ below this: u + v is shorter than 1.5e-4, and float32 leaves its direction to rounding.
_OPPOSITE = 1e-8


def _gram(block: Block, setting: Setting, known: Any) -> Tensor:
    a, b = block.a, block.b
    return inner_products((a, a), (a, b), (b, b))  # (3,) float64


def weights(aa: float, ab: float, bb: float, alpha: float) -> tuple[float, float]:
    """Coefficients of a and b, from their inner products in float64."""
    norm_a, norm_b = math.sqrt(aa), math.sqrt(bb)
    if norm_a == 0.0 or norm_b == 0.0:
        return 1.0 - alpha, alpha
    cosine = max(-1.0, min(1.0, ab / norm_a / norm_b))
    if 1.0 + cosine < _OPPOSITE:
        return 1.0 - alpha, alpha
    angle = math.atan2(math.sqrt((1.0 - cosine) * (1.0 + cosine)), cosine)
    if angle < 1e-6:  # sin(tφ)/sin φ = t (1 + O(φ²)), and φ² is below float64's rounding of 1
        u, v = 1.0 - alpha, alpha
    else:
        u, v = math.sin((1.0 - alpha) * angle) / math.sin(angle), math.sin(alpha * angle) / math.sin(angle)
    length = math.sqrt(u * u + v * v + 2.0 * u * v * cosine)
    scale = (norm_a + norm_b) / 2.0 / length
    return scale * u / norm_a, scale * v / norm_b


def _conclude(total: Tensor, setting: Setting, known: Any) -> tuple[float, float]:
    aa, ab, bb = total.tolist()
    return weights(aa, ab, bb, setting.alpha)


def _combine(block: Block, setting: Setting, known: tuple[float, float]) -> Tensor:
    return (block.a * known[0]).add_(block.b * known[1])


OPERATOR = Operator(
    name="slerp",
    summary="spherical interpolation per tensor at the mean norm",
    citation="SimMerge, App. A.2; Shoemake 1985, Animating rotation with quaternion curves",
    combine=_combine,
    passes=(Pass(_gram, _conclude),),
    linear=True,
    mergekit="slerp",
    mergekit_note=(
        "mergekit interpolates the raw tensors and falls back to linear where the cosine exceeds 0.9995; "
        "here directions are interpolated and rescaled to the mean norm"
    ),
)
