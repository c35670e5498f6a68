"""Norm-balanced sum of task vectors, per tensor.

Both task vectors are scaled to the smaller of their two norms, n; the result is base + 2w ((1 − α) n Δa/‖Δa‖ + α n
Δb/‖Δb‖), at α = 1/2 base + w (…+…). A task vector of norm zero (a frozen tensor) says nothing, so it does not scale
the other one down to nothing: that one keeps its norm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from simmerge_core.operators.operator import Block, Operator, Parameter, Pass, Setting
from simmerge_core.operators.sums import inner_products

if TYPE_CHECKING:
    from torch import Tensor


def _squares(block: Block, setting: Setting, known: Any) -> Tensor:
    a, b = block.a - block.origin, block.b - block.origin
    return inner_products((a, a), (b, b))  # (2,) float64


def _conclude(total: Tensor, setting: Setting, known: Any) -> tuple[float, float]:
    norm_a, norm_b = (math.sqrt(x) for x in total.tolist())
    smaller = min(norm_a, norm_b) or max(norm_a, norm_b)
    scale = 2.0 * setting.params["weight"]
    return (
        scale * (1.0 - setting.alpha) * (smaller / norm_a if norm_a else 0.0),
        scale * setting.alpha * (smaller / norm_b if norm_b else 0.0),
    )


def _combine(block: Block, setting: Setting, known: tuple[float, float]) -> Tensor:
    base = block.origin
    return ((block.a - base) * known[0]).add_((block.b - base) * known[1]).add_(base)


OPERATOR = Operator(
    name="norm_balanced",
    summary="base plus both task vectors scaled to the smaller norm",
    citation="this project; a norm-matched form of Ilharco et al. 2023, arXiv:2212.04089",
    combine=_combine,
    passes=(Pass(_squares, _conclude),),
    needs_base=True,
    linear=True,
    params={"weight": Parameter(0.7, 0.0, 2.0, "weight of each scaled task vector at alpha 1/2")},
)
