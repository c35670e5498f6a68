"""What a plan is for: one task, or several by their mean or their minimum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simmerge_core.errors import SelectionError


@dataclass(frozen=True, slots=True)
class Target:
    """U of a model on the target is U on the task, or the mean or minimum of U over several tasks.

    Attributes
    ----------
    tasks
        Task ids.
    combine
        ``mean`` or ``min``; the same thing for one task.
    weights
        One weight per task for the mean, summing to 1.
    """

    tasks: tuple[str, ...]
    combine: str = "mean"
    weights: tuple[float, ...] = ()

    def __str__(self) -> str:
        return "+".join(self.tasks)

    def over(self, utilities: np.ndarray) -> np.ndarray:
        """Combine (T, …) utilities per task."""
        if len(utilities) == 1:
            return utilities[0]
        if self.combine == "min":
            return utilities.min(axis=0)
        return np.tensordot(np.array(self.weights), utilities, axes=1)


def target_of(
    task: str | Sequence[str] | Target, *, combine: str = "mean", weights: Sequence[float] | None = None
) -> Target:
    """Build a target, checked.

    Raises
    ------
    SelectionError
        If no task is named, one is named twice, or the weights do not fit or are given for the minimum.
    """
    if isinstance(task, Target):
        return task
    tasks = (task,) if isinstance(task, str) else tuple(task)
    if not tasks or len(set(tasks)) != len(tasks):
        raise SelectionError(f"The target tasks {list(tasks)} must be at least one, each named once.")
    if combine not in ("mean", "min"):
        raise SelectionError(f"Tasks cannot be combined by {combine!r}: choose 'mean' or 'min'.")
    if weights is not None and combine == "min" and len(tasks) > 1:
        raise SelectionError(
            "Weights of tasks count for their mean, not for their minimum: leave them out, or take the mean."
        )
    given = list(weights) if weights is not None else [1.0] * len(tasks)
    if len(given) != len(tasks) or not all(0 <= weight < math.inf for weight in given) or sum(given) <= 0:
        raise SelectionError(
            f"The weights {given} do not fit the {len(tasks)} tasks: give one per task, finite, none negative, "
            "not all zero."
        )
    return Target(tasks, combine, tuple(w / sum(given) for w in given))
