"""Model Breadcrumbs, per tensor: drop the largest and the smallest coordinates of each task vector (Davari 2024).

The ceil(gamma · n) largest magnitudes are outliers and go, then the smallest, until round(density · n) coordinates are
left; those that tie with the last one kept stay. The result is base + 2λ ((1 − α) Δa' + α Δb').
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from simmerge_core.operators.magnitudes import Place, lower_counts, magnitude_at, nth_largest, place_of, upper_counts
from simmerge_core.operators.operator import Block, Operator, Parameter, Pass, Setting

if TYPE_CHECKING:
    from torch import Tensor

Band = tuple[float, float]
"""Magnitudes of a task vector that are kept: at least the first, at most the second."""


def ranks(setting: Setting) -> tuple[int, int]:
    """Ranks, counted from the largest as 1, of the smallest and of the largest magnitude that is kept."""
    largest = min(math.ceil(setting.params["gamma"] * setting.size) + 1, setting.size)
    smallest = min(largest - 1 + max(1, round(setting.params["density"] * setting.size)), setting.size)
    return smallest, largest


def _changes(block: Block) -> tuple[Tensor, Tensor]:
    base = block.origin
    return block.a - base, block.b - base


def _upper(block: Block, setting: Setting, known: Any) -> Tensor:
    return upper_counts(_changes(block))


def _conclude_upper(total: Tensor, setting: Setting, known: Any) -> list[Place]:
    """Places of a's smallest and largest, then of b's."""
    return [place_of(row, rank) for row in total for rank in ranks(setting)]


def _lower(block: Block, setting: Setting, known: list[Place]) -> Tensor:
    return lower_counts([change for change in _changes(block) for _ in range(2)], known)


def _conclude_lower(total: Tensor, setting: Setting, known: list[Place]) -> tuple[Band, Band]:
    values = [magnitude_at(place, row) for place, row in zip(known, total, strict=True)]
    return (values[0], values[1]), (values[2], values[3])


def _selected(block: Block, setting: Setting) -> tuple[Band, Band]:
    """The same thresholds by selection, for a tensor of one block."""
    smallest, largest = ranks(setting)
    a, b = ((nth_largest(change, smallest), nth_largest(change, largest)) for change in _changes(block))
    return a, b


def _combine(block: Block, setting: Setting, known: tuple[Band, Band]) -> Tensor:
    scale = 2.0 * setting.params["lam"]
    merged = None
    for change, (low, high), weight in zip(_changes(block), known, (1.0 - setting.alpha, setting.alpha), strict=True):
        size = change.abs()
        part = change.mul_(size.ge(low).logical_and_(size.le(high))).mul_(scale * weight)
        merged = part if merged is None else merged.add_(part)
    assert merged is not None
    return merged.add_(block.origin)


OPERATOR = Operator(
    name="breadcrumbs",
    summary="base plus task vectors without their largest and smallest coordinates",
    citation="Davari and Belilovsky 2024, Model Breadcrumbs, arXiv:2312.06795",
    combine=_combine,
    passes=(Pass(_upper, _conclude_upper), Pass(_lower, _conclude_lower)),
    shortcut=_selected,
    needs_base=True,
    params={
        "density": Parameter(0.9, 0.0, 1.0, "share of each task vector's coordinates that is kept"),
        "gamma": Parameter(0.01, 0.0, 0.5, "share of the largest coordinates that is dropped"),
        "lam": Parameter(0.3, 0.0, 2.0, "weight of each task vector at alpha 1/2"),
    },
    mergekit="breadcrumbs",
)
