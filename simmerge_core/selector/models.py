"""Every way to predict utilities, by name: the selector and what it must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from simmerge_core.selector.baselines import (
    BestFixed,
    BestFixedPerTask,
    GradientBoosting,
    NormRatio,
    Random,
    Ridge,
)
from simmerge_core.selector.mlp import train
from simmerge_core.selector.prediction import UtilityModel
from simmerge_core.selector.rows import TrainingRows


class TrainModel(Protocol):
    """Learn from rows of splits train and validation."""

    def __call__(self, rows: TrainingRows, *, seed: int = 0) -> UtilityModel:
        """Return a trained model."""
        ...


MODELS: Mapping[str, TrainModel] = {
    "simmerge": train,
    "best_fixed": BestFixed.train,
    "best_fixed_per_task": BestFixedPerTask.train,
    "random": Random.train,
    "norm_ratio": NormRatio.train,
    "ridge": Ridge.train,
    "gradient_boosting": GradientBoosting.train,
}
