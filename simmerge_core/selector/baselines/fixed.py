"""Best fixed action, over all pairs or per task: what one would do without looking at the pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from simmerge_core.operators.actions import Action
from simmerge_core.selector.block import FeatureBlock, block_of
from simmerge_core.selector.prediction import Prediction
from simmerge_core.selector.rows import TrainingRows


@dataclass(frozen=True)
class BestFixed:
    """Predicts each action's mean over the training rows, so that the choice is the best fixed action.

    Attributes
    ----------
    mean, spread
        (actions,) mean and standard deviation of the training utilities.
    """

    actions: tuple[Action, ...]
    mean: np.ndarray
    spread: np.ndarray
    name: str = "best_fixed"
    feature_names: tuple[str, ...] = ()

    @classmethod
    def train(cls, rows: TrainingRows, *, seed: int = 0) -> BestFixed:
        """Means of the rows of splits train and validation."""
        known = rows.of_split("train", "validation").utilities
        return cls(rows.actions, known.mean(axis=0), known.std(axis=0))

    @property
    def action(self) -> Action:
        """The best fixed action."""
        return self.actions[int(np.argmax(self.mean))]

    def predict(self, features: pl.DataFrame) -> Prediction:
        """The same answer for every row."""
        return self.predict_block(block_of(features, self.feature_names))

    def predict_block(self, block: FeatureBlock) -> Prediction:
        """The same answer for every row."""
        shape = (len(block), len(self.actions))
        return Prediction(np.broadcast_to(self.mean, shape).copy(), np.broadcast_to(self.spread, shape).copy())


@dataclass(frozen=True)
class BestFixedPerTask:
    """Predicts each action's mean over the training rows of the task; of all rows for a task it has not seen.

    Attributes
    ----------
    overall
        For tasks without rows.
    by_task
        (mean, spread) per task, each (actions,).
    """

    overall: BestFixed
    by_task: dict[str, tuple[np.ndarray, np.ndarray]]
    name: str = "best_fixed_per_task"
    feature_names: tuple[str, ...] = ()

    @classmethod
    def train(cls, rows: TrainingRows, *, seed: int = 0) -> BestFixedPerTask:
        """Means of the rows of splits train and validation, task by task."""
        known = rows.of_split("train", "validation")
        tasks = known.meta["task"].to_numpy().astype(str)
        by_task = {}
        for task in sorted(set(tasks.tolist())):
            part = known.utilities[tasks == task]
            by_task[task] = (part.mean(axis=0), part.std(axis=0))
        return cls(BestFixed.train(rows), by_task)

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions, in the order of a prediction's columns."""
        return self.overall.actions

    def predict(self, features: pl.DataFrame) -> Prediction:
        """The same answer for every row of a task."""
        return self.predict_block(block_of(features, self.feature_names))

    def predict_block(self, block: FeatureBlock) -> Prediction:
        """The same answer for every row of a task."""
        answer = self.overall.predict_block(block)
        for task, (mean, spread) in self.by_task.items():
            rows = block.tasks == task
            answer.utilities[rows], answer.uncertainty[rows] = mean, spread
        return answer
