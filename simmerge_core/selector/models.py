"""Every way to predict utilities, by name: the selector and what it must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from simmerge_core.features.columns import PAPER_GROUPS
from simmerge_core.selector.baselines import (
    BestFixed,
    BestFixedPerTask,
    ExtraTrees,
    GradientBoosting,
    NearestNeighbour,
    NormRatio,
    Random,
    Ridge,
)
from simmerge_core.selector.config import SelectorConfig
from simmerge_core.selector.fitting import train
from simmerge_core.selector.prediction import UtilityModel
from simmerge_core.selector.rows import TrainingRows


class TrainModel(Protocol):
    """Learn from rows of splits train and validation."""

    def __call__(self, rows: TrainingRows, *, seed: int = 0) -> UtilityModel:
        """Return a trained model."""
        ...


PAPER_MLP = SelectorConfig(groups=PAPER_GROUPS, scale_free=False, heads="shared", weight_decay=0.01, members=2)
"""§3.5 as it stands: App. B's features with the task code, one network that regresses every operator's utility."""


def train_paper_mlp(rows: TrainingRows, *, seed: int = 0) -> UtilityModel:
    """The paper's selector (§3.5): two networks, since the mean of one has no spread."""
    return replace(train(rows, config=PAPER_MLP, seed=seed), name="mlp")


MODELS: Mapping[str, TrainModel] = {
    "simmerge": train,
    "best_fixed": BestFixed.train,
    "best_fixed_per_task": BestFixedPerTask.train,
    "random": Random.train,
    "norm_ratio": NormRatio.train,
    "ridge": Ridge.train,
    "gradient_boosting": GradientBoosting.train,
    "extra_trees": ExtraTrees.train,
    "nearest_neighbour": NearestNeighbour.train,
    "mlp": train_paper_mlp,
}
