"""Feature rows as arrays: what every utility model reads, whether they come from a table or from propagation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from simmerge_core.errors import SelectionError


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """n feature rows.

    Attributes
    ----------
    x
        (n, f) float64, raw features in the order of a model's `feature_names`.
    tasks
        (n,) of strings, the task of each row.
    a_expert, b_expert
        (n,) bool: whether the first, the second side holds the task's expert (§3.1).
    """

    x: np.ndarray
    tasks: np.ndarray
    a_expert: np.ndarray
    b_expert: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: np.ndarray) -> FeatureBlock:
        """The rows at `index` (integers or a mask)."""
        return FeatureBlock(self.x[index], self.tasks[index], self.a_expert[index], self.b_expert[index])


def block_of(features: pl.DataFrame, feature_names: Sequence[str]) -> FeatureBlock:
    """Arrays of a feature frame (table `pairwise_features` with its `task`).

    Raises
    ------
    SelectionError
        If a column is missing, or a value is null, NaN or infinite; names the column and the pair.
    """
    needed = ("a", "b", "task", "a_domain", "b_domain", *feature_names)
    missing = [name for name in needed if name not in features.columns]
    if missing:
        raise SelectionError(
            f"The features lack the columns {missing}, which the selector was trained on: "
            "compute them again, or train a selector on the columns that exist."
        )
    columns = [features[name].cast(pl.Float64).to_numpy() for name in feature_names]
    x = np.column_stack(columns) if columns else np.zeros((features.height, 0))
    bad = ~np.isfinite(x)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        pair = features.row(row, named=True)
        raise SelectionError(
            f"Feature {feature_names[column]!r} of the pair ({pair['a']}, {pair['b']}) on task {pair['task']} "
            "is not a finite number: compute the pair's features again."
        )
    tasks = features["task"].to_numpy().astype(str)
    return FeatureBlock(
        x,
        tasks,
        features["a_domain"].to_numpy().astype(str) == tasks,
        features["b_domain"].to_numpy().astype(str) == tasks,
    )
