"""Which plans the predictions cannot tell apart from the best, and what it would take to settle it by evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from simmerge_core.planning.target import Target
from simmerge_core.selector.label_noise import noise_on
from simmerge_core.selector.mlp import Selector

LEAST_DIFFERENCE = 0.01
"""Plans whose utilities differ by less count as equal."""

_CONFIDENCE = 1.959964  # 97.5 % quantile of the normal law: a difference shows at 95 %
_POWER = 0.841621  # 80 % quantile: it does so four times in five


@dataclass(frozen=True, slots=True)
class Settlement:
    """What would settle which of several plans is best.

    Attributes
    ----------
    level
        Of the intervals that the plans were compared by.
    cannot_be_told_apart
        Ranks of the listed plans whose difference from the first may be zero, the first left out.
    plans
        Merges to execute: these and the first; 0 where there is nothing to settle.
    difference
        The smallest predicted difference among them from the first, but at least `LEAST_DIFFERENCE`.
    items_each
        Items to score each merge on, per benchmark of each target task, so that the difference shows at 95 % four
        times in five; 0 where there is nothing to settle, None where the labels have no standard errors.
    usual_items
        Items that a label is the mean of; None where unknown.
    resolved
        The least difference that shows as well on `usual_items`.
    """

    level: float
    cannot_be_told_apart: tuple[int, ...]
    plans: int
    difference: float
    items_each: int | None
    usual_items: int | None
    resolved: float | None


def settle(ranked: pl.DataFrame, selector: Selector, target: Target) -> Settlement:
    """Read off the ranked plans what is open and what would settle it.

    The difference of two means over n items each has the variance 2 v / n, where v is the variance of an item's score
    in the labels. That takes the items of both merges for independent: scored on the same items, as the labels are,
    two merges mostly succeed and fail on the same ones, and fewer items do. For a weighted mean over tasks v is
    Σ w² v_task; for the minimum the largest v_task. Each plan is compared with the first alone: nothing is added for
    comparing several.

    Parameters
    ----------
    ranked
        From `search` with this selector; the first row is the best plan.
    """
    open_rows = ranked[1:].filter(~pl.col("distinguishable"))
    best = ranked["predicted_utility"][0]
    gaps = [float(best - value) for value in open_rows["predicted_utility"]]
    difference = max(LEAST_DIFFERENCE, min(gaps, default=0.0))
    variance, items = _item_noise(selector, target)
    return Settlement(
        level=selector.calibration.promised,
        cannot_be_told_apart=tuple(open_rows["rank"].to_list()),
        plans=len(gaps) + 1 if gaps else 0,
        difference=difference,
        items_each=(None if variance is None else items_to_show(difference, variance)) if gaps else 0,
        usual_items=None if items is None else round(items),
        resolved=None if variance is None or items is None else shown_by(items, variance),
    )


def items_to_show(difference: float, variance: float) -> int:
    """Items per merge on which a true difference shows at 95 % four times in five; `variance` is that of one item."""
    return math.ceil(2.0 * variance * ((_CONFIDENCE + _POWER) / difference) ** 2)


def shown_by(items: float, variance: float) -> float:
    """The least difference that shows on so many items per merge; the inverse of `items_to_show`."""
    return (_CONFIDENCE + _POWER) * math.sqrt(2.0 * variance / items)


def _item_noise(selector: Selector, target: Target) -> tuple[float | None, float | None]:
    """Variance of an item's contribution to the target utility, and the usual number of items."""
    known = [noise_on(task, selector.noise) for task in target.tasks]
    noises = [noise for noise in known if noise is not None]
    if len(noises) < len(known):
        return None, None
    variance = (
        max(noise.variance for noise in noises)
        if target.combine == "min"
        else sum(weight**2 * noise.variance for weight, noise in zip(target.weights, noises, strict=True))
    )
    return variance, min(noise.items for noise in noises)
