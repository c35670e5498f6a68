"""What every fitted baseline starts from: the selector's own rows, standardised alike, split alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simmerge_core.selector.block import FeatureBlock, block_of
from simmerge_core.selector.config import SelectorConfig
from simmerge_core.selector.mlp import Targets
from simmerge_core.selector.rows import TrainingRows
from simmerge_core.selector.scaling import Scaler
from simmerge_core.selector.splits import validation_mask


@dataclass(frozen=True, slots=True)
class Prepared:
    """n rows of the splits train and validation.

    Attributes
    ----------
    x
        (n, f) standardised features with the task code, float64.
    level, difference
        (n, 1) and (n, actions) standardised targets.
    utilities
        (n, actions) as labelled.
    held_out
        (n,) bool: rows that tune what is tuned.
    """

    names: tuple[str, ...]
    block: FeatureBlock
    scaler: Scaler
    targets: Targets
    x: np.ndarray
    level: np.ndarray
    difference: np.ndarray
    utilities: np.ndarray
    held_out: np.ndarray


def prepared(rows: TrainingRows, config: SelectorConfig | None = None) -> Prepared:
    """The training and validation rows as every baseline reads them; test rows are never touched."""
    config = config or SelectorConfig()
    known = rows.of_split("train", "validation")
    names = config.feature_names()
    block = block_of(known.features, names)
    scaler = Scaler.fit(block, clip=config.clip, encode_task=config.encode_task)
    targets = Targets.fit(known.utilities)
    level, difference = targets.encode(known.utilities)
    return Prepared(
        names, block, scaler, targets, scaler(block), level, difference, known.utilities, validation_mask(known.meta)
    )
