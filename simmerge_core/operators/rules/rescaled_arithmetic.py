"""Task arithmetic on checkpoints that were first brought back to the base's scale, per tensor.

Weight decay and high learning rates shrink or grow a checkpoint along the base; that part of its task vector says
nothing of the task and is the longest one. With r = ⟨x, base⟩ / ⟨base, base⟩ the part of checkpoint x along the base,
x / r has the base's own, and what remains of x / r − base is orthogonal to the base. The result is
base + 2λ ((1 − α) (a / r_a − base) + α (b / r_b − base)). Networks that normalise each layer's input are nearly
indifferent to the scale of a matrix, which is why a / r_a computes much the same as a. A part r below `least` (or a
base tensor of norm zero) is no scale: the checkpoint is then left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simmerge_core.operators.operator import Block, Operator, Parameter, Pass, Setting
from simmerge_core.operators.sums import inner_products

if TYPE_CHECKING:
    from torch import Tensor


def _products(block: Block, setting: Setting, known: Any) -> Tensor:
    base = block.origin
    return inner_products((base, base), (block.a, base), (block.b, base))  # (3,) float64


def _conclude(total: Tensor, setting: Setting, known: Any) -> tuple[float, float]:
    """Factors that bring a and b to the base's scale."""
    base, a, b = total.tolist()
    if base == 0.0:
        return 1.0, 1.0
    least = setting.params["least"]
    factor_a, factor_b = (base / product if product / base >= least else 1.0 for product in (a, b))
    return factor_a, factor_b


def _combine(block: Block, setting: Setting, known: tuple[float, float]) -> Tensor:
    base, scale = block.origin, 2.0 * setting.params["lam"]
    a, b = block.a * known[0] - base, block.b * known[1] - base
    return (a * (scale * (1.0 - setting.alpha))).add_(b * (scale * setting.alpha)).add_(base)


OPERATOR = Operator(
    name="rescaled_arithmetic",
    summary="task arithmetic on checkpoints brought back to the base's scale",
    citation="this project; a scale-corrected form of Ilharco et al. 2023, arXiv:2212.04089",
    combine=_combine,
    passes=(Pass(_products, _conclude),),
    needs_base=True,
    linear=True,
    params={
        "lam": Parameter(0.45, 0.0, 2.0, "weight of each rescaled task vector at alpha 1/2"),
        "least": Parameter(0.1, 0.001, 1.0, "smallest part along the base that counts as a scale"),
    },
)
