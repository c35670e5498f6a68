"""Other ways to predict, trained on the selector's own rows, and the harder split: experts that were never seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from simmerge_core import metrics
from simmerge_core.analysis.bootstrap import DRAWS
from simmerge_core.analysis.pairwise import clusters_of, figures_of
from simmerge_core.analysis.predictions import Predictor, predict_units
from simmerge_core.analysis.protocol import Direction, evaluate, stacked
from simmerge_core.analysis.units import Units

if TYPE_CHECKING:
    from simmerge_core.selector import TrainingRows

Train = Callable[["TrainingRows"], Predictor]
"""Learns from rows of the splits train and validation."""

RIVALS = ("ridge", "gradient_boosting", "norm_ratio")
"""Models of `selector.MODELS` that the report compares with the selector."""

HELD_OUT = ("simmerge", "ridge", "norm_ratio")
"""Those that are trained again for each fold of held-out experts, where training time counts."""


def rows_of(
    features: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    actions: Sequence[str],
    counted: pl.DataFrame,
    along: Sequence[Direction],
) -> dict[Direction, TrainingRows]:
    """Training rows per direction, with the labels of its `chosen_on` items only."""
    from simmerge_core.selector import training_rows

    metric = dict(counted.select("benchmark", "metric").iter_rows())
    return {d: training_rows(features, labels, actions=actions, metric=metric, item_set=d.chosen_on) for d in along}


def trained(names: Sequence[str], *, seed: int = 0) -> dict[str, Train]:
    """Training functions by name, from `selector.MODELS`."""
    from simmerge_core.selector import MODELS

    def of(name: str) -> Train:
        return lambda rows: MODELS[name](rows, seed=seed)

    return {name: of(name) for name in names}


def rival_predictions(
    units: Units, features: pl.DataFrame, rows: Mapping[Direction, TrainingRows], models: Mapping[str, Train]
) -> dict[str, dict[Direction, np.ndarray]]:
    """Predicted utilities of each rival, trained on the training pairs of each direction, (n, m)."""
    return {name: {d: predict_units(train(rows[d]), features, units) for d in rows} for name, train in models.items()}


def held_out_experts(
    units: Units,
    features: pl.DataFrame,
    rows: Mapping[Direction, TrainingRows],
    models: Mapping[str, Train],
    *,
    folds: int,
    within: float = 0.01,
    min_gap: float = metrics.MIN_GAP,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """The comparison on pairs with an expert that no model has seen, over folds of checkpoints.

    In each fold every model, and every baseline, learns from the pairs without a held-out checkpoint and is scored on
    those with one. A pair whose parents lie in two folds is scored in both.

    Parameters
    ----------
    models
        As `trained` returns them; ``simmerge`` among them gives the headroom captured and the confusion matrix.
    folds
        Number of folds; every checkpoint is held out once.
    """
    from simmerge_core.selector import checkpoint_folds, checkpoint_split

    tell = progress or (lambda message, fraction: None)
    first = next(iter(rows.values()))
    held = checkpoint_folds(first.meta, folds)
    parts = []
    for number, fold in enumerate(held):
        tell(f"held-out experts, fold {number + 1} of {folds}", number / folds)
        touched = np.isin(units.a, fold) | np.isin(units.b, fold)
        part = replace(units, split=np.where(touched, "test", np.where(units.split == "test", "train", units.split)))
        if not touched.any() or touched.all():
            continue
        split = {d: r.with_split(checkpoint_split(r.meta, fold)) for d, r in rows.items()}
        predictions = rival_predictions(part, features, split, models)
        parts.append(evaluate(part, predictions, along=list(rows), within=within, min_gap=min_gap))
    outcomes = stacked(parts)
    return {
        "split": "held_out_experts",
        "folds": [list(fold) for fold in held],
        "rows": len(outcomes.units),
        "directions": [{"chosen_on": d.chosen_on, "scored_on": d.scored_on, "honest": d.honest} for d in rows],
        **figures_of(
            outcomes,
            clusters=clusters_of(units)[outcomes.units],
            learned=list(models),
            within=within,
            min_gap=min_gap,
            draws=draws,
            seed=seed,
        ),
    }
