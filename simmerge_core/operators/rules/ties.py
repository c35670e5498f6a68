"""The paper's TIES-style rule on raw parameters (App. A.3), coordinate by coordinate.

Where signs agree: (1 − α) a + α b; where they conflict, or one is zero: the larger magnitude; where the larger
magnitude is below τ: zero. α weighs b, as everywhere here (App. A.3 writes α for the first; at 1/2 it is the same).
Signs are compared instead of the product's, which underflows for small weights. Magnitudes that tie with opposite
signs take a, as the paper says: on such coordinates alone the rule does not mirror.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simmerge_core.operators.operator import Block, Operator, Parameter, Setting

if TYPE_CHECKING:
    from torch import Tensor


def _combine(block: Block, setting: Setting, known: Any) -> Tensor:
    a, b, alpha = block.a, block.b, setting.alpha
    # The three cases as weights of a and b, each 0, 1, 1 − α or α: exact, and several times quicker than selecting.
    agree = a.sign().mul_(b).gt_(0.0)
    conflict = 1.0 - agree
    only_a = a.abs().ge_(b.abs()).mul_(conflict)
    of_b = conflict.sub_(only_a).add_(agree * alpha)
    of_a = agree.mul_(1.0 - alpha).add_(only_a)
    merged = of_a.mul_(a).add_(of_b.mul_(b))
    tau = setting.params["tau"]
    return merged.mul_(a.abs().maximum(b.abs()).ge_(tau)) if tau > 0.0 else merged


OPERATOR = Operator(
    name="ties",
    summary="sign-consistent rule on raw weights: interpolate where signs agree, else keep the larger",
    citation="SimMerge, App. A.3, after Yadav et al. 2023",
    combine=_combine,
    params={
        "tau": Parameter(
            0.0, 0.0, 1e6, "coordinates whose larger magnitude is below it become zero; tune on the validation split"
        ),
    },
)
