"""The harder splits: experts that no model has seen, and a domain that no model has seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis.predictions import predict_units
from simmerge_core.analysis.protocol import Direction, Outcomes, evaluate, stacked
from simmerge_core.analysis.units import Units
from simmerge_core.errors import SelectionError
from simmerge_core.experiments.comparison import SIMMERGE, outcome_figures, predictions, raw_rows, rivals_for, train_all
from simmerge_core.experiments.data import ExperimentData, Progress, part_of, silent
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.minimum import MinimumValues, minimum_figures, minimum_values
from simmerge_core.experiments.pairs import TARGETS
from simmerge_core.experiments.result import Result
from simmerge_core.experiments.variants import Variant
from simmerge_core.selector import TrainingRows, checkpoint_folds, checkpoint_split, task_split

QUICK = ("ridge", "norm_ratio")
"""Rivals that are trained again for every fold."""


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """Both splits for both action sets."""
    data = catalogs.full
    figures: dict[str, Any] = {}
    frames = []
    jobs = [(name, kind) for name in TARGETS for kind in ("experts", "tasks")]
    for number, (name, kind) in enumerate(jobs):
        units = data.units(name, TARGETS[name])

        tell = part_of(progress, f"{name} actions, held-out {kind}", number, len(jobs))
        section, raw = held_out(data, units, kind, tell)
        figures.setdefault(name, {})[kind] = section
        frames.append(raw.with_columns(pl.lit(name).alias("actions"), pl.lit(kind).alias("held_out")))
    return Result(pl.concat(frames), figures)


@dataclass(frozen=True, slots=True)
class Fold:
    """What was held out, the units under that split, the outcomes on them, and those for the worse of two tasks."""

    label: str
    units: Units
    outcomes: Outcomes
    minimum: MinimumValues | None = None


def held_out(
    data: ExperimentData,
    units: Units,
    kind: str,
    progress: Progress = silent,
    *,
    models: Sequence[str] = QUICK,
    outcomes: tuple[Outcomes, list[Fold]] | None = None,
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Figures and rows over all folds of ``experts`` or ``tasks``; `outcomes` where they are known already."""
    together, folds = outcomes or held_out_outcomes(data, units, kind, progress, models=models)
    names = [SIMMERGE, *rivals_for(units, models)]
    section = outcome_figures(data, units, together, names) | {"folds": len(folds)}
    least = [fold.minimum for fold in folds if fold.minimum is not None]
    return section | ({"minimum": minimum_figures(data, least)} if least else {}), fold_rows(data, folds)


def fold_rows(data: ExperimentData, folds: Sequence[Fold]) -> pl.DataFrame:
    """Raw rows of all folds."""
    return pl.concat(
        [raw_rows(f.units, f.outcomes, data.along).with_columns(pl.lit(f.label).alias("fold")) for f in folds]
    )


def held_out_outcomes(
    data: ExperimentData, units: Units, kind: str, progress: Progress = silent, *, models: Sequence[str] = QUICK
) -> tuple[Outcomes, list[Fold]]:
    """Outcomes over all folds together and one by one.

    In each fold every model and baseline learns without the held-out part and is scored on the pairs that touch it. A
    pair of two held-out folds is scored in both. A target over both parents' tasks holds out every pair that has a
    parent of the held-out domain.

    Raises
    ------
    SelectionError
        If no fold leaves pairs to train on.
    """
    choices = data.protocol.choices
    rows = {d: data.rows(units.actions, d) for d in data.along}
    names = [SIMMERGE, *rivals_for(units, models)]
    planned = planned_folds(data, units, next(iter(rows.values())), kind)
    splits = [{d: r.with_split(split_of(r)) for d, r in rows.items()} for _, _, split_of in planned]
    train_all(data, [r for split in splits for r in split.values()], names, lambda m, f: progress(m, 0.9 * f))
    folds: list[Fold] = []
    for number, ((label, touched, _), split) in enumerate(zip(planned, splits, strict=True)):
        progress(f"fold {number + 1} of {len(planned)}", 0.9 + 0.1 * number / len(planned))
        fold_units = as_test(units, touched)
        predicted = predictions(data, fold_units, split, names)
        means: dict[str, dict[Direction, np.ndarray]] = {
            n: {d: p.mean(axis=1) for d, p in by.items()} for n, by in predicted.items()
        }
        outcome = evaluate(fold_units, means, along=data.along, within=choices.within, min_gap=choices.min_gap)
        least = None
        if units.tasks.shape[1] > 1:
            least = minimum_values(fold_units, predicted, split="test", along=data.along, min_gap=choices.min_gap)
        folds.append(Fold(label, fold_units, outcome, least))
    return stacked([fold.outcomes for fold in folds]), folds


PlannedFold = tuple[str, np.ndarray, Callable[[TrainingRows], np.ndarray]]
"""What is held out, the units that it touches (n,) bool, and the split of training rows without it."""


def planned_folds(data: ExperimentData, units: Units, rows: TrainingRows, kind: str) -> list[PlannedFold]:
    """The folds of ``experts`` or ``tasks`` that leave something to train on and something to score.

    Raises
    ------
    SelectionError
        If there is none.
    """
    planned: list[PlannedFold] = []
    if kind == "experts":
        for fold in checkpoint_folds(rows.meta, data.protocol.splits.held_out_folds):
            touched = np.isin(units.a, fold) | np.isin(units.b, fold)
            planned.append((",".join(fold), touched, partial(_without_experts, held=fold)))
    else:
        for task in data.catalog.task_ids:
            touched = (units.tasks == task).any(axis=1)
            planned.append((task, touched, partial(_task_or_parents, task=task, units=units)))
    planned = [fold for fold in planned if fold[1].any() and not fold[1].all()]
    if not planned:
        raise SelectionError(f"No fold of held-out {kind} leaves pairs to train on: label more checkpoints.")
    return planned


def as_test(units: Units, touched: np.ndarray) -> Units:
    """What is touched is scored; of the rest, what shares its pair with something touched is learned from by nobody."""
    kept = np.where(units.split == "test", "train", units.split)
    pairs = [frozenset(pair) for pair in zip(units.a.tolist(), units.b.tolist(), strict=True)]
    scored = {pair for pair, hit in zip(pairs, touched.tolist(), strict=True) if hit}
    kept = np.where([pair in scored for pair in pairs], "unused", kept)
    return replace(units, split=np.where(touched, "test", kept))


def _without_experts(rows: TrainingRows, *, held: Sequence[str]) -> np.ndarray:
    return checkpoint_split(rows.meta, held)


def _task_or_parents(rows: TrainingRows, *, task: str, units: Units) -> np.ndarray:
    if units.target == "expert_task":
        return task_split(rows.meta, task)
    split = rows.meta["split"].to_numpy().astype(object)
    split[split == "test"] = "train"
    split[(rows.meta["task"] == task).to_numpy()] = "unused"  # a pair of two other domains, scored on the held-out task
    parents = rows.meta.select((pl.col("a_domain") == task) | (pl.col("b_domain") == task))
    split[parents.to_series().to_numpy()] = "test"
    return split.astype(str)


def held_out_variants(
    data: ExperimentData, units: Units, variants: Sequence[Variant], progress: Progress = silent
) -> tuple[dict[str, Any], pl.DataFrame]:
    """The default selector and variants of it that differ in their settings, on experts that none has seen."""
    rows = {d: data.rows(units.actions, d) for d in data.along}
    planned = planned_folds(data, units, next(iter(rows.values())), "experts")
    splits = [{d: r.with_split(split_of(r)) for d, r in rows.items()} for _, _, split_of in planned]
    every = [Variant(SIMMERGE), *variants]
    data.train_ahead([(r, v.config) for split in splits for r in split.values() for v in every], progress)
    choices = data.protocol.choices
    folds = []
    for (label, touched, _), split in zip(planned, splits, strict=True):
        fold_units = as_test(units, touched)
        means = {
            v.name: {
                d: predict_units(data.selector(r, config=v.config), data.features, units) for d, r in split.items()
            }
            for v in every
        }
        outcome = evaluate(fold_units, means, along=data.along, within=choices.within, min_gap=choices.min_gap)
        folds.append(Fold(label, fold_units, outcome))
    together = stacked([fold.outcomes for fold in folds])
    figures = outcome_figures(data, units, together, [v.name for v in every]) | {"folds": len(folds)}
    return figures, fold_rows(data, folds)
