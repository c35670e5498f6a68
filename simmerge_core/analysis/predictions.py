"""A selector's predicted utility of every action for every unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import polars as pl

from simmerge_core.analysis.units import Units
from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import parse_action


class Predicted(Protocol):
    """What a model returns: `utilities` (n, actions), float64."""

    @property
    def utilities(self) -> np.ndarray:
        """Predicted utilities, (n, actions)."""
        ...


class Predictor(Protocol):
    """A trained selector or baseline model."""

    @property
    def actions(self) -> Sequence[object]:
        """Actions in the order of the predicted columns."""
        ...

    def predict(self, features: pl.DataFrame) -> Predicted:
        """Predict from rows of `pairwise_features`."""
        ...


def predict_units(predictor: Predictor, features: pl.DataFrame, units: Units) -> np.ndarray:
    """Predicted utility of each unit's actions, mean over its parts, (n, m) float64; the rest as `predict_parts`."""
    return predict_parts(predictor, features, units).mean(axis=1)


def predict_parts(predictor: Predictor, features: pl.DataFrame, units: Units) -> np.ndarray:
    """Predicted utility of each unit's actions on each of its parts, (n, p, m) float64.

    Both orientations of a pair describe the same merge (the action mirrored), so their predictions are averaged: a
    choice does not depend on which checkpoint was named first.

    Parameters
    ----------
    features
        Table `pairwise_features` with its partition columns; needs (task, a, b) of every part in at least one
        orientation.

    Raises
    ------
    SelectionError
        Naming a pair and task without features, or an action that the selector was not trained on.
    """
    known = {str(action): column for column, action in enumerate(predictor.actions)}
    missing = [action for action in units.actions if action not in known]
    if missing:
        raise SelectionError(
            f"The selector knows {', '.join(known)} but not {missing[0]}: train it on the action set that is reported."
        )
    forward = [known[action] for action in units.actions]
    turned = [str(parse_action(action).mirrored()) for action in units.actions]
    parts = np.empty((len(units), units.tasks.shape[1], len(units.actions)))
    for part in range(units.tasks.shape[1]):
        ahead = _rows(predictor, features, units.a, units.b, units.tasks[:, part])[:, forward]
        swapped = np.full_like(ahead, np.nan)
        if all(action in known for action in turned):
            columns = [known[action] for action in turned]
            swapped = _rows(predictor, features, units.b, units.a, units.tasks[:, part])[:, columns]
        found = np.isfinite(ahead).astype(float) + np.isfinite(swapped)
        if not found.all():
            row = int(np.argwhere(found == 0)[0, 0])
            raise SelectionError(
                f"There are no features of the pair {units.a[row]}, {units.b[row]} on task {units.tasks[row, part]}: "
                "materialize pairwise_features for it."
            )
        parts[:, part] = (np.nan_to_num(ahead) + np.nan_to_num(swapped)) / found
    return parts


def _rows(predictor: Predictor, features: pl.DataFrame, a: np.ndarray, b: np.ndarray, task: np.ndarray) -> np.ndarray:
    """Predictions for (a, b, task) rows, NaN where the features are absent, (n, actions)."""
    wanted = pl.DataFrame({"task": task, "a": a, "b": b}).with_row_index("unit")
    held = features.unique(["task", "a", "b"], keep="first", maintain_order=True)
    rows = wanted.join(held, on=["task", "a", "b"], how="inner", maintain_order="left")
    result = np.full((len(a), len(predictor.actions)), np.nan)
    if rows.height:
        result[rows["unit"].to_numpy()] = np.asarray(predictor.predict(rows.drop("unit")).utilities, dtype=np.float64)
    return result
