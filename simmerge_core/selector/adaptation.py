"""A selector on another catalog, without labels from there: behaviour is measured against what is usual there.

KL, cosines of activations and attention, and the models' own entropies have other levels on models of another size or
family; what a choice can rest on is how a pair compares with the other pairs of its catalog. Weight features are ratios
and cosines that mean the same at any size, and stay as they are. No label of the new catalog is read, and no network is
trained (§4.4 transfers without retraining; the standardisation is this project's).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import polars as pl

from simmerge_core.errors import SelectionError
from simmerge_core.features.columns import FEATURES
from simmerge_core.selector.block import block_of
from simmerge_core.selector.mlp import Selector

BEHAVIOUR_GROUPS = ("kl", "activation", "attention", "self")
"""Feature groups that are measured on probes."""


def adapted(selector: Selector, features: pl.DataFrame, *, groups: Collection[str] = BEHAVIOUR_GROUPS) -> Selector:
    """The selector with behaviour features standardised on a catalog that it was not trained on.

    Parameters
    ----------
    features
        Table `pairwise_features` of that catalog with its `task` column, all pairs: both orientations, any tasks.
    groups
        Feature groups to standardise there.

    Raises
    ------
    SelectionError
        If there is no row, a feature column is missing, or a value is not finite.
    """
    if features.is_empty():
        raise SelectionError("There are no pairs to standardise behaviour on: compute the catalog's features first.")
    # Each pair once and in one order: a sum of floats depends on it, and the same pairs shall give the same bytes.
    pairs = features.unique(["task", "a", "b"], keep="first", maintain_order=True).sort("task", "a", "b")
    block = block_of(pairs, selector.feature_names)
    group_of = {column.name: column.group for column in FEATURES}
    moved = np.array([group_of[name] in groups for name in selector.feature_names])
    mean, deviation = block.x.mean(axis=0), block.x.std(axis=0)  # float64
    # A feature that is the same for all pairs says nothing about them: it stays at the training scale.
    varied = moved & (deviation > 1e-12 * np.maximum(1.0, np.abs(mean)))
    scaler = replace(
        selector.scaler,
        mean=np.where(moved, mean, selector.scaler.mean),
        scale=np.where(varied, deviation, selector.scaler.scale),
    )
    return replace(selector, scaler=scaler)
