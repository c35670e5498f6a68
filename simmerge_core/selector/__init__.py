"""Selection among actions (§2.3): training rows, the selector, its baselines and splits."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.selector.adaptation import adapted
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
    from simmerge_core.selector.block import FeatureBlock, block_of
    from simmerge_core.selector.calibration import Calibration
    from simmerge_core.selector.config import SelectorConfig
    from simmerge_core.selector.conformal import Band
    from simmerge_core.selector.coverage import interval_coverage
    from simmerge_core.selector.explanation import Explanation, explain, shapley_values
    from simmerge_core.selector.fitting import train
    from simmerge_core.selector.label_noise import LabelNoise, noise_on
    from simmerge_core.selector.mlp import SELECTOR_FORMAT, Selector
    from simmerge_core.selector.models import MODELS
    from simmerge_core.selector.prediction import Prediction, UtilityModel
    from simmerge_core.selector.prediction_errors import DIFFERENCES
    from simmerge_core.selector.rows import TrainingRows, training_rows
    from simmerge_core.selector.splits import checkpoint_folds, checkpoint_split, task_split

_HOME = {
    "Band": "conformal",
    "BestFixed": "baselines",
    "BestFixedPerTask": "baselines",
    "Calibration": "calibration",
    "DIFFERENCES": "prediction_errors",
    "Explanation": "explanation",
    "ExtraTrees": "baselines",
    "FeatureBlock": "block",
    "GradientBoosting": "baselines",
    "LabelNoise": "label_noise",
    "MODELS": "models",
    "NearestNeighbour": "baselines",
    "NormRatio": "baselines",
    "Prediction": "prediction",
    "Random": "baselines",
    "Ridge": "baselines",
    "SELECTOR_FORMAT": "mlp",
    "Selector": "mlp",
    "SelectorConfig": "config",
    "TrainingRows": "rows",
    "UtilityModel": "prediction",
    "adapted": "adaptation",
    "block_of": "block",
    "checkpoint_folds": "splits",
    "checkpoint_split": "splits",
    "explain": "explanation",
    "interval_coverage": "coverage",
    "noise_on": "label_noise",
    "shapley_values": "explanation",
    "task_split": "splits",
    "train": "fitting",
    "training_rows": "rows",
}

__all__ = [
    "DIFFERENCES",
    "MODELS",
    "SELECTOR_FORMAT",
    "Band",
    "BestFixed",
    "BestFixedPerTask",
    "Calibration",
    "Explanation",
    "ExtraTrees",
    "FeatureBlock",
    "GradientBoosting",
    "LabelNoise",
    "NearestNeighbour",
    "NormRatio",
    "Prediction",
    "Random",
    "Ridge",
    "Selector",
    "SelectorConfig",
    "TrainingRows",
    "UtilityModel",
    "adapted",
    "block_of",
    "checkpoint_folds",
    "checkpoint_split",
    "explain",
    "interval_coverage",
    "noise_on",
    "shapley_values",
    "task_split",
    "train",
    "training_rows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
