"""Extremely randomised trees (Geurts et al. 2006; scikit-learn), on the level and the within-pair differences."""

from __future__ import annotations

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

_TREES = 200
_LEAVES = (2, 3, 5, 10)  # least rows per leaf, chosen on the validation rows


@dataclass(frozen=True)
class ExtraTrees:
    """One forest for the level and one for all differences; trained where it is needed and never stored."""

    actions: tuple[Action, ...]
    feature_names: tuple[str, ...]
    scaler: Scaler
    targets: Targets
    level: Any
    difference: Any
    residual: np.ndarray
    name: str = "extra_trees"

    @classmethod
    def train(cls, rows: TrainingRows, *, seed: int = 0, config: SelectorConfig | None = None) -> ExtraTrees:
        """Leaf size chosen on the validation rows, forests from training and validation rows together."""
        p = prepared(rows, config)
        leaf = min(_LEAVES, key=lambda n: _error(p.x, p.difference, p.held_out, n, seed))
        level, difference = (_forest(p.x, y, leaf, seed) for y in (p.level[:, 0], p.difference))
        model = cls(rows.actions, p.names, p.scaler, p.targets, level, difference, np.zeros(len(rows.actions)))
        residual = (p.utilities - model.predict_block(p.block).utilities).std(axis=0)
        return cls(rows.actions, p.names, p.scaler, p.targets, level, difference, residual)

    def predict(self, features: pl.DataFrame) -> Prediction:
        """Predict for the rows of a `pairwise_features` frame with `task`."""
        return self.predict_block(block_of(features, self.feature_names))

    def predict_block(self, block: FeatureBlock) -> Prediction:
        """Predict for rows given as arrays."""
        x = self.scaler(block)
        utilities = self.targets.decode(self.level.predict(x)[:, None], self.difference.predict(x))
        return Prediction(utilities, np.broadcast_to(self.residual, utilities.shape).copy())


def _forest(x: np.ndarray, y: np.ndarray, leaf: int, seed: int, trees: int = _TREES) -> Any:
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(trees, min_samples_leaf=leaf, max_features=0.5, n_jobs=1, random_state=seed).fit(x, y)


def _error(x: np.ndarray, y: np.ndarray, held_out: np.ndarray, leaf: int, seed: int) -> float:
    trial = _forest(x[~held_out], y[~held_out], leaf, seed, trees=50)
    return float(np.mean((trial.predict(x[held_out]) - y[held_out]) ** 2))
