"""Model Stock for two checkpoints, per tensor: how far to go from the base to their mean (Jang et al. 2024).

With φ the angle between the task vectors, the point on the line from the base to the mean that is nearest to the centre
of all possible fine-tunes is base + t ((1 − α) Δa + α Δb) with t = 2 cos φ / (1 + cos φ). Task vectors that agree are
averaged in full, orthogonal ones leave the base as it is. An obtuse angle, of which the derivation says nothing, counts
as a right one; a task vector of norm zero (a frozen tensor) has no angle, and the mean is taken in full.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from simmerge_core.operators.operator import Block, Operator, Pass, Setting
from simmerge_core.operators.sums import inner_products

if TYPE_CHECKING:
    from torch import Tensor


def _products(block: Block, setting: Setting, known: Any) -> Tensor:
    a, b = block.a - block.origin, block.b - block.origin
    return inner_products((a, a), (b, b), (a, b))  # (3,) float64


def _conclude(total: Tensor, setting: Setting, known: Any) -> float:
    square_a, square_b, product = total.tolist()
    if square_a == 0.0 or square_b == 0.0:
        return 1.0
    cosine = min(1.0, max(0.0, product / math.sqrt(square_a * square_b)))
    return 2.0 * cosine / (1.0 + cosine)


def _combine(block: Block, setting: Setting, known: float) -> Tensor:
    base = block.origin
    change = ((block.a - base) * (known * (1.0 - setting.alpha))).add_((block.b - base) * (known * setting.alpha))
    return change.add_(base)


OPERATOR = Operator(
    name="model_stock",
    summary="base plus the mean task vector, shortened by the angle between both",
    citation="Jang et al. 2024, Model Stock: All we need is just a few fine-tuned models, arXiv:2403.19522",
    combine=_combine,
    passes=(Pass(_products, _conclude),),
    needs_base=True,
    linear=True,
    mergekit="model_stock",
    mergekit_note="mergekit weighs all checkpoints alike, as alpha 1/2 does here",
)
