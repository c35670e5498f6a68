"""Linear interpolation (App. A.1): (1 − α) a + α b. α = 0 gives a, α = 1 gives b."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simmerge_core.operators.operator import Block, Operator, Setting

if TYPE_CHECKING:
    from torch import Tensor


def interpolate(block: Block, setting: Setting, known: Any) -> Tensor:
    """(1 − α) a + α b in float32."""
    return (block.a * (1.0 - setting.alpha)).add_(block.b * setting.alpha)


OPERATOR = Operator(
    name="linear",
    summary="weighted mean of the weights",
    citation="SimMerge, App. A.1; Wortsman et al. 2022, Model soups, arXiv:2203.05482",
    combine=interpolate,
    linear=True,
    mergekit="linear",
)
