"""One comparison: an action set, a target, a split; every method's choices with their worth and its noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis.bootstrap import cluster_weights, interval, weighted_mean
from simmerge_core.analysis.gaps import Gaps
from simmerge_core.analysis.pairwise import clusters_of, figures_of, method_name
from simmerge_core.analysis.predictions import predict_parts
from simmerge_core.analysis.protocol import Direction, Outcomes, evaluate
from simmerge_core.analysis.units import Units
from simmerge_core.experiments.data import ExperimentData, Progress, silent
from simmerge_core.experiments.minimum import minimum_figures, minimum_values
from simmerge_core.selector import MODELS, SelectorConfig, TrainingRows, UtilityModel
from simmerge_core.selector.models import PAPER_MLP

SIMMERGE = "simmerge"
PAPER_MLP_NAME = "mlp"
RIVALS = ("ridge", "gradient_boosting", "extra_trees", "nearest_neighbour", "mlp", "norm_ratio")
"""Models that are trained on the selector's own rows and must be beaten; norm_ratio needs slerp and ties."""

Parts = Mapping[str, Mapping[Direction, np.ndarray]]
"""Per model and direction: predicted utility per unit, part and action, (n, p, m)."""


def rivals_for(units: Units, rivals: Sequence[str] = RIVALS) -> list[str]:
    """Those of `rivals` that can choose among the units' actions.

    The norm-ratio rule compares an expert with its auxiliary: over both parents' tasks neither is.
    """
    rule = units.target == "expert_task" and {"slerp@0.5", "ties@0.5"} <= set(units.actions)
    return [r for r in rivals if r != "norm_ratio" or rule]


def fitted(data: ExperimentData, name: str, rows: TrainingRows, progress: Progress = silent) -> UtilityModel:
    """A model of `selector.MODELS` trained with the protocol's seed; selectors are kept on disk."""
    if name == SIMMERGE:
        return data.selector(rows, progress)
    if name == PAPER_MLP_NAME:
        return replace(data.selector(rows, progress, config=PAPER_MLP), name=name)
    return MODELS[name](rows, seed=data.protocol.choices.seed)


def train_all(
    data: ExperimentData, rows: Sequence[TrainingRows], models: Sequence[str], progress: Progress = silent
) -> None:
    """Train every selector among the models on every set of rows, several at a time."""
    configs: dict[str, SelectorConfig | None] = {SIMMERGE: None, PAPER_MLP_NAME: PAPER_MLP}
    data.train_ahead([(r, configs[name]) for name in models if name in configs for r in rows], progress)


def predictions(
    data: ExperimentData,
    units: Units,
    rows: Mapping[Direction, TrainingRows],
    models: Sequence[str],
    progress: Progress = silent,
) -> dict[str, dict[Direction, np.ndarray]]:
    """Train each model for each direction and predict every unit, per part, (n, p, m)."""
    train_all(data, list(rows.values()), models, progress)
    found: dict[str, dict[Direction, np.ndarray]] = {}
    for number, name in enumerate(models):
        progress(f"training {name}", number / len(models))
        found[name] = {d: predict_parts(fitted(data, name, r), data.features, units) for d, r in rows.items()}
    return found


def compare(
    data: ExperimentData,
    units: Units,
    parts: Parts,
    *,
    split: str = "test",
    along: Sequence[Direction] | None = None,
    constant: Sequence[str] = (),
) -> tuple[dict[str, Any], pl.DataFrame, Outcomes]:
    """Figures, raw rows and outcomes of the choices on a split.

    Parameters
    ----------
    constant
        Models whose predictions only name a choice: they have no utilities to choose for the worse task by.
    """
    choices = data.protocol.choices
    along = list(along or data.along)
    utilities = {name: by for name, by in parts.items() if name not in constant}
    means = {name: {d: p.mean(axis=1) for d, p in by.items()} for name, by in parts.items()}
    outcomes = evaluate(units, means, along=along, split=split, within=choices.within, min_gap=choices.min_gap)
    return (
        outcome_figures(data, units, outcomes, list(parts))
        | {"pairs": int((units.split == split).sum())}
        | (
            {
                "minimum": minimum_figures(
                    data, [minimum_values(units, utilities, split=split, along=along, min_gap=choices.min_gap)]
                )
            }
            if units.tasks.shape[1] > 1
            else {}
        ),
        raw_rows(units, outcomes, along),
        outcomes,
    )


def outcome_figures(data: ExperimentData, units: Units, outcomes: Outcomes, models: Sequence[str]) -> dict[str, Any]:
    """All figures of outcomes, with the selector's gain over every other method, in utility and in points."""
    choices, noise = data.protocol.choices, data.protocol.noise
    clusters = clusters_of(units)[outcomes.units]
    figures = figures_of(
        outcomes,
        clusters=clusters,
        learned=list(models),
        within=choices.within,
        min_gap=choices.min_gap,
        draws=noise.draws,
        seed=noise.seed,
    )
    weights = cluster_weights(clusters, draws=noise.draws, seed=noise.seed)
    names = {m: method_name(m) if m in outcomes.actions else m for m in outcomes.utility}
    gaps = Gaps(outcomes.tasks, outcomes.expert, outcomes.auxiliary, choices.min_gap)
    closed = {names[m]: interval(gaps.macro(v), weights).as_dict() for m, v in outcomes.utility.items()}
    figures |= {"target": units.target, "actions": list(units.actions), "gap_intervals": closed}
    if SIMMERGE in outcomes.utility:
        others = [m for m in outcomes.utility if m != SIMMERGE]
        mine = outcomes.mean_utility(SIMMERGE)
        figures["gain_over"] = {
            names[m]: interval(weighted_mean(mine - outcomes.mean_utility(m)), weights).as_dict() for m in others
        }
        figures["points_over"] = {
            names[m]: interval(gaps.points(outcomes.utility[SIMMERGE], outcomes.utility[m]), weights).as_dict()
            for m in others
        }
    return figures


def raw_rows(units: Units, outcomes: Outcomes, along: Sequence[Direction]) -> pl.DataFrame:
    """One row per unit, direction, task and method: what was chosen and what it was worth on the other items."""
    each = len(outcomes.units) // len(along)
    frames = []
    for method, values in outcomes.utility.items():
        action = _chosen(outcomes, method, units.actions)
        for part in range(values.shape[1]):
            frames.append(
                pl.DataFrame(
                    {
                        "direction": [str(along[row // each]) for row in range(len(outcomes.units))],
                        "a": units.a[outcomes.units],
                        "b": units.b[outcomes.units],
                        "task": outcomes.tasks[:, part],
                        "method": [method] * len(values),
                        "action": action,
                        "utility": values[:, part],
                        "expert": outcomes.expert[:, part],
                        "auxiliary": outcomes.auxiliary[:, part],
                    }
                )
            )
    return pl.concat(frames).with_columns(pl.col(pl.Float64).cast(pl.Float32))


def _chosen(outcomes: Outcomes, method: str, actions: Sequence[str]) -> list[str]:
    """The action that a method chose per row; empty where it chose none or several."""
    choice = outcomes.choice.get(method)
    if choice is None:
        return [""] * len(outcomes.units)
    return [actions[int(p.argmax())] if p.max() == 1.0 else "" for p in choice]
