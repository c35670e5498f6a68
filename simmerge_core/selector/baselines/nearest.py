"""Nearest neighbours: the mean utilities of the labelled pairs whose features are most alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from simmerge_core.operators.actions import Action
from simmerge_core.selector.baselines.preparation import prepared
from simmerge_core.selector.block import FeatureBlock, block_of
from simmerge_core.selector.config import SelectorConfig
from simmerge_core.selector.prediction import Prediction
from simmerge_core.selector.rows import TrainingRows
from simmerge_core.selector.scaling import Scaler
from simmerge_core.selector.threads import one_blas_thread

_COUNTS = (1, 3, 5, 9, 15, 25, 40)


@dataclass(frozen=True)
class NearestNeighbour:
    """Euclidean distance between standardised features with the task code.

    Attributes
    ----------
    x, utilities
        (n, f) and (n, actions) of the labelled rows.
    neighbours
        How many are averaged, chosen on the validation rows.
    """

    actions: tuple[Action, ...]
    feature_names: tuple[str, ...]
    scaler: Scaler
    x: np.ndarray
    utilities: np.ndarray
    neighbours: int
    name: str = "nearest_neighbour"

    @classmethod
    def train(cls, rows: TrainingRows, *, seed: int = 0, config: SelectorConfig | None = None) -> NearestNeighbour:
        """Count chosen by the utility of the choices on the validation rows."""
        p = prepared(rows, config)
        fit, check = ~p.held_out, p.held_out
        near = _nearest(p.x[check], p.x[fit], max(_COUNTS))
        each = np.arange(check.sum())

        def gained(count: int) -> float:
            predicted = p.utilities[fit][near[:, :count]].mean(axis=1)
            return float(p.utilities[check][each, predicted.argmax(axis=1)].mean())

        usable = [count for count in _COUNTS if count <= fit.sum()]
        return cls(rows.actions, p.names, p.scaler, p.x, p.utilities, max(usable, key=gained))

    def predict(self, features: pl.DataFrame) -> Prediction:
        """Predict for the rows of a `pairwise_features` frame with `task`."""
        return self.predict_block(block_of(features, self.feature_names))

    def predict_block(self, block: FeatureBlock) -> Prediction:
        """Mean and standard deviation over the neighbours."""
        found = self.utilities[_nearest(self.scaler(block), self.x, self.neighbours)]  # (n, neighbours, actions)
        return Prediction(found.mean(axis=1), found.std(axis=1))


def _nearest(x: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """(n, count) indices of the nearest known rows, nearest first; equal distances keep the order of the rows."""
    with one_blas_thread():
        distance = (known**2).sum(axis=1) - 2.0 * x @ known.T
    return np.argsort(np.round(distance, 9), axis=1, kind="stable")[:, :count]
