"""TIES-Merging on task vectors, per tensor: trim, elect a sign, disjoint mean (Yadav et al. 2023).

Trim keeps the round(density · n) largest magnitudes of each task vector (all that tie with the last one kept). The
elected sign of a coordinate is that of (1 − α) Δa + α Δb after trimming; the result is base + λ times the weighted
mean of the kept changes that have this sign. Where nothing is kept, or both cancel exactly, the base stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simmerge_core.operators.magnitudes import Place, lower_counts, magnitude_at, nth_largest, place_of, upper_counts
from simmerge_core.operators.operator import Block, Operator, Parameter, Pass, Setting

if TYPE_CHECKING:
    from torch import Tensor


def _changes(block: Block) -> tuple[Tensor, Tensor]:
    base = block.origin
    return block.a - base, block.b - base


def _upper(block: Block, setting: Setting, known: Any) -> Tensor:
    return upper_counts(_changes(block))


def _lower(block: Block, setting: Setting, known: list[Place]) -> Tensor:
    return lower_counts(_changes(block), known)


def kept(setting: Setting) -> int:
    """How many coordinates of a task vector are kept, at least one."""
    return max(1, round(setting.params["density"] * setting.size))


def _conclude_upper(total: Tensor, setting: Setting, known: Any) -> list[Place]:
    return [place_of(row, kept(setting)) for row in total]


def _conclude_lower(total: Tensor, setting: Setting, known: list[Place]) -> tuple[float, float]:
    a, b = (magnitude_at(place, row) for place, row in zip(known, total, strict=True))
    return a, b


def _selected(block: Block, setting: Setting) -> tuple[float, float]:
    """The same thresholds by selection, for a tensor of one block."""
    a, b = (nth_largest(change, kept(setting)) for change in _changes(block))
    return a, b


def _combine(block: Block, setting: Setting, known: tuple[float, float]) -> Tensor:
    alpha = setting.alpha
    a, b = (c.mul_(c.abs().ge_(least)) for c, least in zip(_changes(block), known, strict=True))
    weighted_a, weighted_b = a * (1.0 - alpha), b * alpha
    elected = (weighted_a + weighted_b).sign_()
    agrees_a, agrees_b = a.mul_(elected).gt_(0.0), b.mul_(elected).gt_(0.0)
    total = weighted_a.mul_(agrees_a).add_(weighted_b.mul_(agrees_b))
    # Weight of those that agree; where none does the sum is zero, whatever it is divided by.
    weight = agrees_a.mul_(1.0 - alpha).add_(agrees_b.mul_(alpha)).clamp_min_(1e-30)
    return total.div_(weight).mul_(setting.params["lam"]).add_(block.origin)


OPERATOR = Operator(
    name="ties_task_vector",
    summary="TIES-Merging: trim task vectors, elect signs, mean of those that agree",
    citation="Yadav et al. 2023, TIES-Merging, arXiv:2306.01708",
    combine=_combine,
    passes=(Pass(_upper, _conclude_upper), Pass(_lower, _conclude_lower)),
    shortcut=_selected,
    needs_base=True,
    params={
        "density": Parameter(0.5, 0.0, 1.0, "share of each task vector's coordinates that is kept"),
        "lam": Parameter(1.0, 0.0, 2.0, "scale of the merged task vector"),
    },
    mergekit="ties",
)
