"""Selection among actions (§2.3): training rows, the selector, its baselines and splits."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.selector.baselines import (
        BestFixed,
        BestFixedPerTask,
        GradientBoosting,
        NormRatio,
        Random,
        Ridge,
    )
    from simmerge_core.selector.block import FeatureBlock, block_of
    from simmerge_core.selector.config import SelectorConfig
    from simmerge_core.selector.mlp import Selector, train
    from simmerge_core.selector.models import MODELS
    from simmerge_core.selector.prediction import Prediction, UtilityModel
    from simmerge_core.selector.rows import TrainingRows, training_rows
    from simmerge_core.selector.splits import checkpoint_folds, checkpoint_split, task_split

_HOME = {
    "BestFixed": "baselines",
    "BestFixedPerTask": "baselines",
    "FeatureBlock": "block",
    "GradientBoosting": "baselines",
    "MODELS": "models",
    "NormRatio": "baselines",
    "Prediction": "prediction",
    "Random": "baselines",
    "Ridge": "baselines",
    "Selector": "mlp",
    "SelectorConfig": "config",
    "TrainingRows": "rows",
    "UtilityModel": "prediction",
    "block_of": "block",
    "checkpoint_folds": "splits",
    "checkpoint_split": "splits",
    "task_split": "splits",
    "train": "mlp",
    "training_rows": "rows",
}

__all__ = [
    "MODELS",
    "BestFixed",
    "BestFixedPerTask",
    "FeatureBlock",
    "GradientBoosting",
    "NormRatio",
    "Prediction",
    "Random",
    "Ridge",
    "Selector",
    "SelectorConfig",
    "TrainingRows",
    "UtilityModel",
    "block_of",
    "checkpoint_folds",
    "checkpoint_split",
    "task_split",
    "train",
    "training_rows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
