"""TIES-Merging on task vectors, per tensor: trim, elect a sign, disjoint mean (Yadav et al. 2023).

Trim keeps the round(density · n) largest magnitudes of each task vector (all that tie with the last one kept). The
elected sign of a coordinate is that of (1 − α) Δa + α Δb after trimming; the result is base + λ times the weighted
mean of the kept changes that have this sign. Where nothing is kept, or both cancel exactly, the base stays.

The trim threshold is exact and takes two passes of bounded memory: a magnitude's float32 bits, read as an integer,
sort as the magnitude does, so a histogram of the upper 15 bits finds the bin of the last one kept and a histogram
of the lower 16 bits within that bin finds its value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simmerge_core.operators.operator import Block, Operator, Parameter, Pass, Setting

if TYPE_CHECKING:
    from torch import Tensor

_LOW_BITS = 16
_HIGH_BINS = 1 << 15  # the sign bit of a magnitude is zero
_LOW_BINS = 1 << _LOW_BITS


def _magnitude_bits(change: Tensor) -> Tensor:
    import torch

    return change.abs().view(torch.int32)


def _changes(block: Block) -> tuple[Tensor, Tensor]:
    base = block.origin
    return block.a - base, block.b - base


def _upper(block: Block, setting: Setting, known: Any) -> Tensor:
    import torch

    counts = [torch.bincount(_magnitude_bits(c) >> _LOW_BITS, minlength=_HIGH_BINS) for c in _changes(block)]
    return torch.stack(counts)  # (2, 2**15) int64


def _lower(block: Block, setting: Setting, known: list[tuple[int, int]]) -> Tensor:
    import torch

    counts = []
    for change, (upper, _) in zip(_changes(block), known, strict=True):
        bits = _magnitude_bits(change).cpu().numpy()  # numpy selects by a mask several times quicker
        inside = bits[(bits >> _LOW_BITS) == upper] & (_LOW_BINS - 1)
        counts.append(torch.from_numpy(np.bincount(inside, minlength=_LOW_BINS)))
    return torch.stack(counts)  # (2, 2**16) int64, on the host


def _last_kept(counts: Tensor, keep: int) -> tuple[int, int]:
    """Bin of the keep-th largest, and how many of that bin are kept."""
    import torch

    above = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(above, keep))  # first place from the top with at least `keep` at or above it
    chosen = counts.numel() - 1 - place
    return chosen, keep - int(above[place] - counts[chosen])


def kept(setting: Setting) -> int:
    """How many coordinates of a task vector are kept, at least one."""
    return max(1, round(setting.params["density"] * setting.size))


def _conclude_upper(total: Tensor, setting: Setting, known: Any) -> list[tuple[int, int]]:
    return [_last_kept(row, kept(setting)) for row in total]


def _conclude_lower(total: Tensor, setting: Setting, known: list[tuple[int, int]]) -> tuple[float, float]:
    a, b = (upper << _LOW_BITS | _last_kept(row, keep)[0] for row, (upper, keep) in zip(total, known, strict=True))
    return _magnitude(a), _magnitude(b)


def _magnitude(bits: int) -> float:
    return float(np.uint32(bits).view(np.float32))


def _selected(block: Block, setting: Setting) -> tuple[float, float]:
    """The same thresholds by selection, for a tensor of one block."""
    place = setting.size - kept(setting)  # counted from the smallest
    a, b = (float(np.partition(c.abs_().cpu().numpy(), place)[place]) for c in _changes(block))
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
