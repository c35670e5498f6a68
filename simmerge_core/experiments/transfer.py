"""A selector of small models on larger ones, without retraining (§4.4): Fig. 6, 13, 14."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis import multiway
from simmerge_core.analysis.predictions import predict_parts
from simmerge_core.analysis.protocol import Direction, best_fixed
from simmerge_core.analysis.reporting import plan_chooser
from simmerge_core.analysis.units import Units
from simmerge_core.errors import SelectionError
from simmerge_core.experiments.comparison import SIMMERGE, compare, fitted, rivals_for
from simmerge_core.experiments.data import ExperimentData, Progress, part_of
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.pairs import TARGETS
from simmerge_core.experiments.plans import executed, remembered, summary
from simmerge_core.experiments.result import Result
from simmerge_core.features.columns import FEATURE_GROUPS
from simmerge_core.selector import adapted
from simmerge_core.selector.adaptation import BEHAVIOUR_GROUPS

RIVALS = ("ridge", "extra_trees", "norm_ratio")
CARRIED = "best_fixed_carried"
ADAPTED = "adapted"
"""The selector with behaviour standardised on the larger catalog's unlabeled pairs (`selector.adapted`)."""

STANDARDISED: dict[str, tuple[str, ...]] = {
    "behaviour": BEHAVIOUR_GROUPS,
    "everything": tuple(FEATURE_GROUPS),
    "KL and self signals": ("kl", "self"),
    "all but weights": tuple(g for g in FEATURE_GROUPS if g not in ("weight", "weight_module")),
}
"""Feature groups that were tried, to see which levels shift with size."""

OWN_FOLDS = 5


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """Pairs under both action sets, then three-way plans; every model is trained on the small catalog alone.

    ``best_fixed`` is the larger catalog's own best fixed action over all its pairs, a stronger baseline than the one
    that a user could carry over (``best_fixed_carried``). ``adapted`` standardises behaviour on the larger catalog's
    unlabeled pairs. ``own_selector`` is trained on the larger catalog's other
    pairs (cross-validated by pair): what retraining would give.
    """
    small, large = catalogs.full, catalogs.larger
    assert large is not None
    figures: dict[str, Any] = {"parameter_ratio": _ratio(small, large)}
    frames = []
    for number, (name, target) in enumerate(TARGETS.items()):
        progress(f"{name} actions", 0.4 * number)
        units = large.units(name, target)
        units = _all_test(units)
        parts: dict[str, dict[Any, np.ndarray]] = {
            SIMMERGE: {},
            ADAPTED: {},
            **{r: {} for r in rivals_for(units, RIVALS)},
            "own_selector": {},
        }
        carried = small.units(name, target)
        for d in large.along:
            rows = small.rows(units.actions, d)
            for model in (SIMMERGE, *rivals_for(units, RIVALS)):
                parts[model][d] = predict_parts(fitted(small, model, rows), large.features, units)
            standardised = adapted(small.selector(rows), large.features)
            parts[ADAPTED][d] = predict_parts(standardised, large.features, units)
            parts["own_selector"][d] = _own(large, units, d)
            shape = parts[SIMMERGE][d].shape
            one = np.zeros(shape)
            one[..., best_fixed(carried, d.chosen_on)] = 1.0  # only the place of the largest counts
            parts.setdefault(CARRIED, {})[d] = one
        section, raw, _ = compare(large, units, parts, constant=[CARRIED])
        figures[name] = section
        figures.setdefault("standardised", {})[name] = _standardised(small, large, units, parts[SIMMERGE])
        frames.append(raw.with_columns(pl.lit(name).alias("actions")))
    progress("three-way plans", 0.8)
    units = large.units("paper", "expert_task")
    everything = _all_training(units)
    selectors = {d: small.selector(small.rows(units.actions, d)) for d in large.along}
    fixed = {d: units.actions[best_fixed(everything, d.chosen_on)] for d in large.along}
    versions = {
        "plans": selectors,
        f"plans_{ADAPTED}": {d: adapted(selector, large.features) for d, selector in selectors.items()},
    }
    choosers = {
        name: {d: remembered(plan_chooser(s, large.features)) for d, s in by.items()} for name, by in versions.items()
    }
    every = [chooser for by in choosers.values() for chooser in by.values()]
    found = executed(large, every, [*fixed.values()] * len(choosers), part_of(progress, "three-way plans", 4, 5))
    found = [c for c in found if c.k == multiway.ALL_PARENTS_K]
    for name, by in choosers.items():
        figures[name], rows_of_plans = summary(large, found, by, fixed, everything)
        frames.append(_as_pairs(rows_of_plans, name))
    return Result(pl.concat(frames, how="diagonal"), figures)


def _standardised(
    small: ExperimentData, large: ExperimentData, units: Units, plain: Mapping[Direction, np.ndarray]
) -> dict[str, Any]:
    """Share of the oracle's gain by what is standardised on the larger catalog."""
    parts: dict[str, Mapping[Direction, np.ndarray]] = {SIMMERGE: plain}
    for label, groups in STANDARDISED.items():
        parts[label] = {
            d: predict_parts(
                adapted(small.selector(small.rows(units.actions, d)), large.features, groups=groups),
                large.features,
                units,
            )
            for d in large.along
        }
    section, _, _ = compare(large, units, parts)
    return {key: {name: section[key][name] for name in parts} for key in ("utility", "captured")}


def _as_pairs(plans: pl.DataFrame, name: str) -> pl.DataFrame:
    renamed = plans.rename(
        {"expert": "a", "auxiliaries": "b", "expert_score": "expert", "auxiliary_score": "auxiliary"}
    )
    return renamed.with_columns(pl.lit(name).alias("actions"))


def _ratio(small: ExperimentData, large: ExperimentData) -> float:
    ratio, least = large.parameters / max(small.parameters, 1), small.protocol.larger.least_parameter_ratio
    if ratio < least:
        raise SelectionError(
            f"The larger catalog's models have {ratio:.1f} times the parameters, and transfer is asked at {least:g} "
            "times or more: build the preset that the protocol names."
        )
    return float(ratio)


def _all_test(units: Units) -> Units:
    """Every pair once to score, since no model was trained on any, and once more to choose the best fixed action from.

    That choice is made on the same pairs' other items.
    """

    def twice(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, values])

    def both_sets(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: twice(v) for name, v in values.items()}

    return replace(
        units,
        a=twice(units.a),
        b=twice(units.b),
        tasks=twice(units.tasks),
        split=np.repeat(["test", "train"], len(units)),
        utilities=both_sets(units.utilities),
        expert=both_sets(units.expert),
        auxiliary=both_sets(units.auxiliary),
        base=both_sets(units.base),
    )


def _all_training(units: Units) -> Units:
    return replace(units, split=np.full(len(units), "train"))


def _own(large: ExperimentData, units: Units, direction: Any) -> np.ndarray:
    """Predictions of selectors of the larger catalog, each pair by one that did not see it."""
    from simmerge_core.selector.rows import pair_ids
    from simmerge_core.selector.splits import pair_folds

    rows = large.rows(units.actions, direction)
    pairs = pair_ids(rows.meta)
    folds = pair_folds(pairs, OWN_FOLDS, seed=large.protocol.choices.seed)
    fold_of = dict(
        zip(zip(rows.meta["a"].to_list(), rows.meta["b"].to_list(), strict=True), folds.tolist(), strict=True)
    )
    mine = np.array([fold_of.get((a, b), fold_of.get((b, a), 0)) for a, b in zip(units.a, units.b, strict=True)])
    result = np.full((len(units), units.tasks.shape[1], len(units.actions)), np.nan)
    without = [rows.with_split(np.where(folds == fold, "test", "train")) for fold in range(OWN_FOLDS)]
    large.train_ahead([(part, None) for part in without])
    for fold, part in enumerate(without):
        result[mine == fold] = predict_parts(large.selector(part), large.features, units)[mine == fold]
    return result
