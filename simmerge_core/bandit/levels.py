"""The level of rewards on a task that joined a bandit: one number for all arms.

A new task may be harder than any that was logged, and every reward on it is then lower than expected. One coordinate
per arm would learn that too, but each arm from its own rewards: an arm that was chosen is told that it is worse than
those that were not, and for as many rounds as it takes, the bandit goes around the arms. Shared, the level says nothing
about which arm is best, and what is left of a reward does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskLevel:
    """Bayesian mean, with a prior of zero that counts as one reward, of what rewards lie above expectations.

    Attributes
    ----------
    mean
        In units of a reward.
    weight
        Sum of squared weights of the task in the targets of rounds so far: the number of rounds, for single tasks.
    """

    mean: float = 0.0
    weight: float = 0.0

    def learned(self, surprise: float, weight: float) -> TaskLevel:
        """After a reward that lay `surprise` above what was expected, on a target with this weight of the task."""
        seen = self.weight + weight * weight
        return TaskLevel(self.mean + weight * surprise / (1.0 + seen), seen)


def level_of(levels: Mapping[str, TaskLevel], tasks: Iterable[tuple[str, float]]) -> float:
    """What the levels add to every arm's reward on a target."""
    return sum((weight * levels[task].mean for task, weight in tasks if task in levels), start=0.0)
