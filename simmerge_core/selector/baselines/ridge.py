"""Ridge regression in closed form, on the level and on the within-pair differences."""

from __future__ import annotations

from dataclasses import dataclass

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
from simmerge_core.selector.threads import one_blas_thread

_PENALTIES = tuple(10.0**e for e in np.arange(-1.0, 5.01, 0.5))


@dataclass(frozen=True)
class Ridge:
    """Linear in the standardised features and the task code; float64 throughout.

    Attributes
    ----------
    level, difference
        (f, 1) and (f, actions) coefficients, each under its own penalty.
    residual
        (actions,) standard deviation of the training residuals.
    """

    actions: tuple[Action, ...]
    feature_names: tuple[str, ...]
    scaler: Scaler
    targets: Targets
    level: np.ndarray
    difference: np.ndarray
    residual: np.ndarray
    name: str = "ridge"

    @classmethod
    def train(cls, rows: TrainingRows, *, seed: int = 0, config: SelectorConfig | None = None) -> Ridge:
        """Penalties chosen on the validation rows, coefficients from training and validation rows together."""
        p = prepared(rows, config)
        with one_blas_thread():
            level, difference = (_tuned(p.x, y, p.held_out) for y in (p.level, p.difference))
            fitted = p.targets.decode(p.x @ level, p.x @ difference)
        residual = (p.utilities - fitted).std(axis=0)
        return cls(rows.actions, p.names, p.scaler, p.targets, level, difference, residual)

    def predict(self, features: pl.DataFrame) -> Prediction:
        """Predict for the rows of a `pairwise_features` frame with `task`."""
        return self.predict_block(block_of(features, self.feature_names))

    def predict_block(self, block: FeatureBlock) -> Prediction:
        """Predict for rows given as arrays."""
        x = self.scaler(block)
        with one_blas_thread():
            utilities = self.targets.decode(x @ self.level, x @ self.difference)
        return Prediction(utilities, np.broadcast_to(self.residual, utilities.shape).copy())


def _tuned(x: np.ndarray, y: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Coefficients (f, o) under the penalty with the least error on the held-out rows."""
    fit, check = ~held_out, held_out
    errors = [np.mean((x[check] @ _solve(x[fit], y[fit], p) - y[check]) ** 2) for p in _PENALTIES]
    return _solve(x, y, _PENALTIES[int(np.argmin(errors))])


def _solve(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """(XᵀX + penalty·I)⁻¹ Xᵀy; the targets have mean zero, so there is no intercept."""
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
