"""Exact magnitude thresholds of a tensor that streams by in blocks: two histogram passes, bounded memory.

A magnitude's float32 bits, read as an integer, sort as the magnitude does. So a histogram of the upper 15 bits finds
the bin of the n-th largest, and a histogram of the lower 16 bits within that bin finds its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_LOW_BITS = 16
_HIGH_BINS = 1 << 15  # the sign bit of a magnitude is zero
_LOW_BINS = 1 << _LOW_BITS

Place = tuple[int, int]
"""Upper bin of the n-th largest magnitude, and which of that bin's it is, counted from the largest."""


def _magnitude_bits(change: Tensor) -> Tensor:
    import torch

    return change.abs().view(torch.int32)


def upper_counts(changes: Sequence[Tensor]) -> Tensor:
    """(changes, 2**15) int64: how many magnitudes of a block fall into each upper bin."""
    import torch

    return torch.stack([torch.bincount(_magnitude_bits(c) >> _LOW_BITS, minlength=_HIGH_BINS) for c in changes])


def lower_counts(changes: Sequence[Tensor], places: Sequence[Place]) -> Tensor:
    """(changes, 2**16) int64, on the host: how the magnitudes of one upper bin fall into the lower bins."""
    import torch

    counts = []
    for change, (upper, _) in zip(changes, places, strict=True):
        bits = _magnitude_bits(change).cpu().numpy()  # numpy selects by a mask several times quicker
        inside = bits[(bits >> _LOW_BITS) == upper] & (_LOW_BINS - 1)
        counts.append(torch.from_numpy(np.bincount(inside, minlength=_LOW_BINS)))
    return torch.stack(counts)


def place_of(counts: Tensor, n: int) -> Place:
    """Where the n-th largest (1, 2, …) is, from the total counts of one change."""
    import torch

    above = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(above, n))  # first place from the top with at least n at or above it
    return counts.numel() - 1 - place, n - int(above[place] - counts[counts.numel() - 1 - place])


def magnitude_at(place: Place, counts: Tensor) -> float:
    """The n-th largest magnitude itself, from the place it has and the total lower counts of its bin."""
    upper, within = place
    return float(np.uint32(upper << _LOW_BITS | place_of(counts, within)[0]).view(np.float32))


def nth_largest(change: Tensor, n: int) -> float:
    """The same by selection, for a tensor that is whole in memory; `change` is overwritten."""
    values = change.abs_().cpu().numpy()
    return float(np.partition(values, len(values) - n)[len(values) - n])
