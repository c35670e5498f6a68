"""Plans of three and four checkpoints (§4.2, §4.3): Fig. 4, 5, 10, 11, Tables 2 and 3; orders, operators, baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from simmerge_core.analysis import multiway
from simmerge_core.analysis.protocol import Direction, best_fixed
from simmerge_core.analysis.reporting import plan_chooser
from simmerge_core.analysis.units import Units
from simmerge_core.experiments.data import ExperimentData, Progress, silent
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.result import Result
from simmerge_core.labels import design_plans, designed_configurations


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """The paper's actions on the task of each configuration, and the extended ones over all parents' tasks (k = 3)."""
    data = catalogs.full
    figures: dict[str, Any] = {}
    units = data.units("paper", "expert_task")
    choosers, fixed = _choosers(data, units), _fixed(data, units)
    progress("executing the designed plans", 0.0)
    found = executed(data, list(choosers.values()), list(fixed.values()), lambda m, f: progress(m, 0.6 * f))
    figures["paper"], paper = summary(data, found, choosers, fixed, units)
    progress("extended actions", 0.6)
    wide = data.units("extended", "both_tasks")
    choosers, fixed = _choosers(data, wide), _fixed(data, wide)
    joint = over_parents(data, found, choosers, fixed, lambda m, f: progress(m, 0.6 + 0.4 * f))
    figures["extended"], extended = summary(data, joint, choosers, fixed, wide)
    named = [frame.with_columns(pl.lit(n).alias("actions")) for n, frame in (("paper", paper), ("extended", extended))]
    return Result(pl.concat(named), figures)


def _choosers(data: ExperimentData, units: Units) -> dict[Direction, multiway.Chooser]:
    rows = {d: data.rows(units.actions, d) for d in data.along}
    data.train_ahead([(r, None) for r in rows.values()])
    return {d: remembered(plan_chooser(data.selector(r), data.features)) for d, r in rows.items()}


def _fixed(data: ExperimentData, units: Units) -> dict[Direction, str]:
    return {d: units.actions[best_fixed(units, d.chosen_on)] for d in data.along}


def executed(
    data: ExperimentData,
    choosers: Sequence[multiway.Chooser],
    fixed: Sequence[str],
    progress: Progress = silent,
    *,
    baselines: bool = True,
) -> list[multiway.Configuration]:
    """The designed configurations with every plan that the comparison asks for, executed or from the store.

    Parameters
    ----------
    choosers, fixed, baselines
        As in `multiway.plans_needed`; without choosers the designed plans alone.
    """
    known = sorted(data.fingerprints)
    plans = [(plan, task) for task in data.catalog.task_ids for plan in design_plans(data.catalog, known, task)]
    labels = data.execute(plans, lambda m, f: progress(m, 0.4 * f))
    found = multiway.configurations(labels, domains=data.catalog.domains, counted=data.counted)
    more = multiway.plans_needed(found, choosers, best_fixed=fixed, baselines=baselines)
    further = data.execute(more, lambda m, f: progress(m, 0.4 + 0.6 * f)) if more else labels.clear()
    return multiway.configurations(pl.concat([labels, further]), domains=data.catalog.domains, counted=data.counted)


def over_parents(
    data: ExperimentData,
    found: Sequence[multiway.Configuration],
    choosers: Mapping[Direction, multiway.Chooser],
    fixed: Mapping[Direction, str],
    progress: Progress = silent,
) -> list[multiway.Configuration]:
    """Three-way configurations scored on the tasks of all their checkpoints, with the plans that are asked for."""
    designed = [
        multiway.Configuration(task, members[0], members[1:])
        for task, members in designed_configurations(data.catalog, sorted(data.fingerprints))
    ]
    rules: dict[str, Any] = {"domains": data.catalog.domains, "tasks": data.catalog.task_ids}
    empty = multiway.over_parents(found, designed, **rules)
    more = multiway.parents_plans_needed(found, empty, list(choosers.values()), best_fixed=list(fixed.values()))
    labels = data.execute(more, progress)
    scored = multiway.configurations(labels, domains=data.catalog.domains, counted=data.counted)
    merged = {(c.task, c.members): replace(c, utilities=dict(c.utilities)) for c in found}
    for c in scored:
        here = merged.setdefault((c.task, c.members), replace(c, utilities={}))
        here.utilities.update(c.utilities)
    return multiway.over_parents(list(merged.values()), designed, **rules)


def summary(
    data: ExperimentData,
    found: Sequence[multiway.Configuration],
    choosers: Mapping[Direction, multiway.Chooser],
    fixed: Mapping[Direction, str],
    units: Units,
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Figures per k, and one row per configuration, direction and method."""
    noise, choices = data.protocol.noise, data.protocol.choices
    splits = {(a, b): s for x, y, s in zip(units.a, units.b, units.split, strict=True) for a, b in ((x, y), (y, x))}
    outcomes = multiway.outcomes(
        found, choosers, best_fixed=fixed, actions=units.actions, alone=data.alone, base=data.catalog.base.id
    )
    figures = multiway.figures_of(
        found,
        outcomes,
        along=list(choosers),
        actions=units.actions,
        splits=splits,
        min_gap=choices.min_gap,
        draws=noise.draws,
        seed=noise.seed,
    )
    rows = [
        (
            str(o.direction),
            o.configuration.k,
            o.configuration.task,
            o.configuration.expert,
            "+".join(o.configuration.auxiliaries),
            method,
            str(o.plan) if method == "simmerge" else "",
            value,
            o.expert,
            o.auxiliary,
        )
        for o in outcomes
        for method, value in o.utility.items()
    ]
    about = ["direction", "k", "task", "expert", "auxiliaries", "method", "plan"]
    frame = pl.DataFrame(rows, schema=[*about, "utility", "expert_score", "auxiliary_score"], orient="row")
    return figures, frame.with_columns(pl.col(pl.Float64).cast(pl.Float32))


def remembered(chooser: multiway.Chooser) -> multiway.Chooser:
    """The same choices, each searched for once."""
    known: dict[Any, multiway.Choice] = {}

    def choose(task: str | tuple[str, ...], members: tuple[str, ...]) -> multiway.Choice:
        key = (task, members)
        if key not in known:
            known[key] = chooser(task, members)
        return known[key]

    return choose
