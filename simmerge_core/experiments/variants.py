"""Variants of the selector against its default on the same pairs: what ablations have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis.predictions import predict_parts
from simmerge_core.analysis.protocol import Direction, evaluate
from simmerge_core.analysis.units import Units
from simmerge_core.experiments.comparison import SIMMERGE, outcome_figures, raw_rows
from simmerge_core.experiments.data import ExperimentData, Progress, silent
from simmerge_core.selector import SelectorConfig, TrainingRows


@dataclass(frozen=True)
class Variant:
    """One way to train a selector.

    Attributes
    ----------
    name
        How it is called in tables.
    rows
        By direction; None takes those of the default.
    config
        None takes the default settings.
    features
        Table to predict from; None takes the catalog's.
    """

    name: str
    rows: Mapping[Direction, TrainingRows] | None = None
    config: SelectorConfig | None = None
    features: pl.DataFrame | None = None


def compare_variants(
    data: ExperimentData, units: Units, variants: Sequence[Variant], progress: Progress = silent
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Figures and raw rows of the default selector and of every variant, all on the test pairs.

    ``gain_over`` and ``points_over`` of the figures are the default's over each variant, with paired intervals.
    """
    own = {d: data.rows(units.actions, d) for d in data.along}
    every = [Variant(SIMMERGE), *variants]
    jobs = [((v.rows or own)[d], v.config) for v in every for d in data.along]
    data.train_ahead(jobs, progress)
    means: dict[str, dict[Direction, np.ndarray]] = {}
    for v in every:
        table = data.features if v.features is None else v.features
        means[v.name] = {
            d: predict_parts(data.selector((v.rows or own)[d], config=v.config), table, units).mean(axis=1)
            for d in data.along
        }
    choices = data.protocol.choices
    outcomes = evaluate(units, means, along=data.along, within=choices.within, min_gap=choices.min_gap)
    figures = outcome_figures(data, units, outcomes, [v.name for v in every])
    return figures | {"pairs": int((units.split == "test").sum())}, raw_rows(units, outcomes, data.along)
