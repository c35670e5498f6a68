"""What a utility model answers, and the interface that the selector and every baseline share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from simmerge_core.operators.actions import Action
from simmerge_core.selector.block import FeatureBlock


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted utilities of n pairs under each action.

    Attributes
    ----------
    utilities
        (n, actions) float64, in units of the metric.
    uncertainty
        (n, actions) float64 ≥ 0: standard deviation over the ensemble; for a baseline that has none, the standard
        deviation of its residuals on the training rows.
    members
        (members, n, actions) float64 of the single networks; None for baselines.
    half_width
        (n, actions) float64 > 0: half-width of the calibrated interval around each utility, which holds the measured
        score at the selector's level (`calibration.Calibration`); None for baselines.
    """

    utilities: np.ndarray
    uncertainty: np.ndarray
    members: np.ndarray | None = None
    half_width: np.ndarray | None = None

    def choice(self) -> np.ndarray:
        """(n,) index of the action with the highest predicted utility (§2.3.1); the first of equal ones."""
        return np.argmax(np.round(self.utilities, 12), axis=1)


class UtilityModel(Protocol):
    """f_plan (§2.3.1): features of a pair on a task → utility under each action."""

    @property
    def name(self) -> str:
        """Name in `selector.MODELS`."""
        ...

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions, in the order of a prediction's columns."""
        ...

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The feature columns that are read, in order."""
        ...

    def predict(self, features: pl.DataFrame) -> Prediction:
        """Predict for the rows of a `pairwise_features` frame with its `task` column."""
        ...

    def predict_block(self, block: FeatureBlock) -> Prediction:
        """Predict for rows given as arrays."""
        ...
