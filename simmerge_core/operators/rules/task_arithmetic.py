"""Task arithmetic: base + 2λ ((1 − α)(a − base) + α (b − base)), which at α = 1/2 is base + λ (Δa + Δb)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simmerge_core.operators.operator import Block, Operator, Parameter, Setting

if TYPE_CHECKING:
    from torch import Tensor


def _combine(block: Block, setting: Setting, known: Any) -> Tensor:
    base, scale = block.origin, 2.0 * setting.params["lam"]
    change = ((block.a - base) * (scale * (1.0 - setting.alpha))).add_((block.b - base) * (scale * setting.alpha))
    return change.add_(base)


OPERATOR = Operator(
    name="task_arithmetic",
    summary="base plus a scaled sum of task vectors",
    citation="Ilharco et al. 2023, Editing models with task arithmetic, arXiv:2212.04089",
    combine=_combine,
    needs_base=True,
    linear=True,
    params={"lam": Parameter(0.3, 0.0, 2.0, "weight of each task vector at alpha 1/2")},
    mergekit="task_arithmetic",
)
