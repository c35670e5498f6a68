"""The noise of labels: a label is a mean over finitely many items, and its standard error says how much they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simmerge_core.selector.rows import TrainingRows


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """How much the labels of a task vary because they are means over items.

    Attributes
    ----------
    variance
        Of one item's score; with n items per benchmark, a task score has the variance `variance` / n.
    items
        Items per benchmark and item set behind the labels, on average.
    """

    variance: float
    items: float


def label_noise(rows: TrainingRows) -> dict[str, LabelNoise]:
    """Noise of the labels by task; a task whose labels have no standard errors is left out."""
    if rows.item_variance is None or rows.items is None:
        return {}
    tasks = rows.meta["task"].to_numpy().astype(str)
    found = {}
    for task in sorted(set(tasks.tolist())):
        variance, items = rows.item_variance[tasks == task], rows.items[tasks == task]
        if np.isfinite(variance).any() and np.isfinite(items).any():
            found[task] = LabelNoise(float(np.nanmean(variance)), float(np.nanmean(items)))
    return found


def noise_on(task: str, known: Mapping[str, LabelNoise]) -> LabelNoise | None:
    """The task's noise, the mean over the known tasks for one that has no labels; None where nothing is known."""
    if task in known or not known:
        return known.get(task)
    values = list(known.values())
    return LabelNoise(float(np.mean([v.variance for v in values])), float(np.mean([v.items for v in values])))
