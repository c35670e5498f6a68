"""Gradient boosting (scikit-learn), on the level and on the within-pair differences."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.operators.actions import Action
from simmerge_core.selector.baselines.preparation import prepared
from simmerge_core.selector.block import FeatureBlock, block_of
from simmerge_core.selector.config import SelectorConfig
from simmerge_core.selector.mlp import Targets
from simmerge_core.selector.prediction import Prediction
from simmerge_core.selector.rows import TrainingRows
from simmerge_core.selector.scaling import Scaler


@dataclass(frozen=True)
class GradientBoosting:
    """One boosted ensemble of trees per output: the level, and each action's difference from it.

    It is trained again wherever it is needed and never stored.
    """

    actions: tuple[Action, ...]
    feature_names: tuple[str, ...]
    scaler: Scaler
    targets: Targets
    level: Any
    difference: tuple[Any, ...]
    residual: np.ndarray
    name: str = "gradient_boosting"

    @classmethod
    def train(cls, rows: TrainingRows, *, seed: int = 0, config: SelectorConfig | None = None) -> GradientBoosting:
        """Number of trees chosen on the validation rows, trees from training and validation rows together."""
        p = prepared(rows, config)
        with _one_thread():
            level, *difference = [_boosted(p.x, y, p.held_out, seed) for y in (p.level[:, 0], *p.difference.T)]
        model = cls(rows.actions, p.names, p.scaler, p.targets, level, tuple(difference), np.zeros(len(rows.actions)))
        residual = (p.utilities - model.predict_block(p.block).utilities).std(axis=0)
        return cls(rows.actions, p.names, p.scaler, p.targets, level, tuple(difference), residual)

    def predict(self, features: pl.DataFrame) -> Prediction:
        """Predict for the rows of a `pairwise_features` frame with `task`."""
        return self.predict_block(block_of(features, self.feature_names))

    def predict_block(self, block: FeatureBlock) -> Prediction:
        """Predict for rows given as arrays."""
        x = self.scaler(block)
        with _one_thread():
            level = self.level.predict(x)[:, None]
            difference = np.stack([trees.predict(x) for trees in self.difference], axis=1)
        utilities = self.targets.decode(level, difference)
        return Prediction(utilities, np.broadcast_to(self.residual, utilities.shape).copy())


def _one_thread() -> AbstractContextManager[Any]:
    """Trees this small lose more time to waiting threads than they gain, and one thread always adds in one order."""
    import sklearn.ensemble  # noqa: F401  # the limit binds only libraries that are loaded already
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(limits=1)


def _boosted(x: np.ndarray, y: np.ndarray, held_out: np.ndarray, seed: int) -> Any:
    """Trees whose number had the least error on the held-out rows."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    settings = {
        "learning_rate": 0.06,
        "max_leaf_nodes": 8,
        "max_bins": 32,  # hundreds of rows: finer bins cost time and find nothing
        "l2_regularization": 1.0,
        "random_state": seed,
    }
    trial = HistGradientBoostingRegressor(max_iter=100, early_stopping=False, **settings)
    trial.fit(x[~held_out], y[~held_out])
    errors = [np.mean((p - y[held_out]) ** 2) for p in trial.staged_predict(x[held_out])]
    final = HistGradientBoostingRegressor(max_iter=1 + int(np.argmin(errors)), early_stopping=False, **settings)
    return final.fit(x, y)
