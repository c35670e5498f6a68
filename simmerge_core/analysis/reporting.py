"""The report: every figure of the comparison, from the tables of a data root and the trained selectors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from simmerge_core import metrics
from simmerge_core.analysis import multiway, pairwise
from simmerge_core.analysis.bootstrap import DRAWS
from simmerge_core.analysis.comparisons import comparison_rows
from simmerge_core.analysis.multiway import PlanKey
from simmerge_core.analysis.predictions import predict_units
from simmerge_core.analysis.protocol import Direction, best_fixed, directions
from simmerge_core.analysis.requests import summarise_requests
from simmerge_core.analysis.rivals import HELD_OUT, RIVALS, held_out_experts, rival_predictions, rows_of
from simmerge_core.analysis.rivals import trained as models
from simmerge_core.analysis.scores import counted_metrics, item_sets_of, standalone
from simmerge_core.analysis.units import Target, Units, build_units
from simmerge_core.catalog import Catalog
from simmerge_core.errors import SelectionError
from simmerge_core.plans import Plan, plan_of
from simmerge_core.storage import Location
from simmerge_core.tables import (
    CHECKPOINTS,
    MERGE_LABELS,
    MERGE_OUTCOMES,
    MERGE_PLANS,
    PAIRWISE_FEATURES,
    PLAN_LABELS,
    STANDALONE_SCORES,
    DataRoot,
)

Progress = Callable[[str, float], None]

TARGETS: Mapping[str, Target] = {"paper": "expert_task", "extended": "both_tasks"}
"""What each action set is judged by: the expert's task as in the paper, or the mean over both parents' tasks."""


def selector_folder(root: DataRoot, action_set: str, *, reverse: bool = False) -> Location:
    """Where the selector of an action set lies: trained on the first item set, or with `reverse` on the second."""
    return root.root / "selector" / (f"{action_set}-reverse" if reverse else action_set)


def load_selectors(root: DataRoot, action_set: str, *, item_sets: tuple[str, ...]) -> dict[Direction, Any]:
    """The trained selectors of an action set by direction; the reverse direction only if its selector was trained.

    Raises
    ------
    SelectionError
        If the forward selector is not there.
    """
    from simmerge_core.selector import Selector

    forward = selector_folder(root, action_set)
    if not Selector.is_in(forward):
        raise SelectionError(
            f"There is no selector in {forward}: materialize the asset selector, or run `simmerge demo`."
        )
    backward = selector_folder(root, action_set, reverse=True)
    along = directions(item_sets, both=Selector.is_in(backward))
    return {d: Selector.load(folder) for d, folder in zip(along, (forward, backward), strict=False)}


@dataclass(frozen=True, slots=True)
class _Tables:
    """What the figures are computed from."""

    labels: pl.DataFrame
    scores: pl.DataFrame
    features: pl.DataFrame
    plan_labels: pl.DataFrame
    counted: pl.DataFrame


@dataclass(frozen=True, slots=True)
class _Settings:
    min_gap: float
    within: float
    draws: int
    seed: int


def report(
    root: DataRoot,
    catalog: Catalog,
    *,
    selectors: Mapping[str, Mapping[Direction, Any]] | None = None,
    rivals: Sequence[str] = RIVALS,
    held_out_folds: int = 0,
    metric: str | None = None,
    min_gap: float = metrics.MIN_GAP,
    within: float = 0.01,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare what the selectors choose with every baseline, under the clean protocol.

    Every choice (the selectors', the best fixed action, the oracle's) is made from one item set; all figures are on
    another. The paper's actions on the expert's task are at the top level, the extended actions on the mean over both
    parents' tasks under ``extended``; ``comparisons`` holds the same as flat rows, by split, k, protocol and method.

    Parameters
    ----------
    root
        The data root; reads standalone_scores, merge_labels, pairwise_features, plan_labels, merge_plans and
        merge_outcomes. The last three may be absent. Rows of replaced checkpoints are left out.
    selectors
        Trained selectors by action set and direction; None loads them from `selector_folder`.
    rivals
        Names in `selector.MODELS` that are trained here on the same rows and compared.
    held_out_folds
        Folds of the split by checkpoint, for which a selector and the quick rivals are trained per fold and action
        set, in the first direction only; 0 leaves it out.
    metric
        None takes each benchmark's deciding metric.
    min_gap
        Guard of GapClosed, in units of the metric.
    within
        Tolerance of "within" accuracy, in units of the metric.
    draws, seed
        Of the bootstrap; the seed is also that of the models trained here.
    progress
        Called with a message and the fraction done.

    Returns
    -------
    dict
        JSON-serialisable, floats unrounded.

    Raises
    ------
    SelectionError
        If labels, features or selectors are missing.
    """
    tell = progress or (lambda message, fraction: None)
    tell("reading tables", 0.0)
    settings = _Settings(min_gap, within, draws, seed)
    tables = _read(root, counted_metrics(catalog, metric=metric))
    result: dict[str, Any] = {}
    for number, (action_set, target) in enumerate(TARGETS.items()):
        start = 0.05 + 0.45 * number
        tell(f"{action_set} actions", start)
        units = _units(tables, catalog, action_set, target)
        if selectors is None:
            trained: Mapping[Direction, Any] = load_selectors(root, action_set, item_sets=units.item_sets)
        else:
            trained = selectors[action_set]

        def within_section(message: str, fraction: float, start: float = start, name: str = action_set) -> None:
            tell(f"{name} actions: {message}", start + 0.45 * fraction)

        section = _section(units, trained, tables, catalog, rivals, held_out_folds, settings, within_section)
        section["protocol"] = _protocol(action_set, units, trained, tables.counted, settings)
        result.update(section if action_set == "paper" else {action_set: section})
    tell("merge requests", 0.95)
    result["merge_requests"] = summarise_requests(
        root.scan(MERGE_PLANS).collect(), root.scan(MERGE_OUTCOMES).collect(), catalog=catalog, counted=tables.counted
    )
    result["catalog"] = _counts(catalog, tables.labels, tables.plan_labels)
    result["comparisons"] = comparison_rows(result)
    tell("done", 1.0)
    return result


def _read(root: DataRoot, counted: pl.DataFrame) -> _Tables:
    """The tables, without the rows that stem from another content of a checkpoint than its present one."""
    prints = root.scan(CHECKPOINTS).select("checkpoint", "fingerprint").collect()

    def present(frame: pl.DataFrame, *sides: tuple[str, str]) -> pl.DataFrame:
        for id, fingerprint in sides if prints.height else ():
            frame = frame.join(
                prints.rename({"checkpoint": id, "fingerprint": fingerprint}), on=[id, fingerprint], how="semi"
            )
        return frame

    pair = (("a", "a_fingerprint"), ("b", "b_fingerprint"))
    return _Tables(
        labels=present(root.scan(MERGE_LABELS).collect(), *pair),
        scores=present(root.scan(STANDALONE_SCORES).collect(), ("checkpoint", "fingerprint")),
        features=present(root.scan(PAIRWISE_FEATURES).collect(), *pair),
        plan_labels=root.scan(PLAN_LABELS).collect(),
        counted=counted,
    )


def _units(tables: _Tables, catalog: Catalog, action_set: str, target: Target) -> Units:
    return build_units(
        tables.labels,
        tables.scores,
        actions=tuple(map(str, catalog.actions(action_set))),
        domains=catalog.domains,
        base=catalog.base.id,
        counted=tables.counted,
        item_sets=item_sets_of(catalog),
        target=target,
    )


def plans_needed(
    root: DataRoot,
    catalog: Catalog,
    *,
    tasks: Sequence[str] | None = None,
    designed: Collection[tuple[str, tuple[str, ...]]] | None = None,
    selectors: Mapping[str, Mapping[Direction, Any]] | None = None,
    metric: str | None = None,
    baselines: bool = True,
) -> list[tuple[Plan, str]]:
    """Plans, with the task to score them on, that the report asks for and that `plan_labels` does not hold yet.

    Of every designed configuration: the selector's plan (per direction) and, with `baselines`, all orders of its
    operator sequence and "expert last" under the best fixed operator. For the paper's actions on the configuration's
    task; for the extended actions, with three checkpoints only, on the tasks of all its checkpoints. Label exactly
    these and the report is complete.

    Parameters
    ----------
    tasks
        Only plans to score on these tasks; all by default. For the extended actions that includes plans of other tasks'
        configurations.
    designed
        Task and checkpoints, expert first, of every configuration in the design of any task; None takes those whose
        designed plans `plan_labels` holds.
    selectors
        Trained selectors by action set and direction; None loads them from `selector_folder`.

    Returns
    -------
    list of (Plan, str)
        Each plan once per task.
    """
    tables = _read(root, counted_metrics(catalog, metric=metric))
    found = _configurations(tables, catalog)
    own = (
        multiway.of_own_design(found, [str(a) for a in catalog.actions("paper")])
        if designed is None
        else [multiway.Configuration(task, members[0], members[1:]) for task, members in designed]
    )
    keys = {(c.task, frozenset(c.members)) for c in own}
    needed: dict[tuple[PlanKey, str], Plan] = {}
    for action_set, target in TARGETS.items():
        units = _units(tables, catalog, action_set, target)
        trained = (
            selectors[action_set]
            if selectors is not None
            else load_selectors(root, action_set, item_sets=units.item_sets)
        )
        choosers = [plan_chooser(model, tables.features) for model in trained.values()]
        fixed = [units.actions[best_fixed(units, d.chosen_on)] for d in trained]
        if target == "expert_task":
            here = [c for c in found if (c.task, frozenset(c.members)) in keys and (tasks is None or c.task in tasks)]
            plans = multiway.plans_needed(here, choosers, best_fixed=fixed, baselines=baselines)
        else:
            joint = multiway.over_parents(found, own, domains=catalog.domains, tasks=catalog.task_ids)
            plans = multiway.parents_plans_needed(
                found, joint, choosers, best_fixed=fixed, tasks=tasks, baselines=baselines
            )
        for plan, task in plans:
            needed.setdefault((multiway.canonical(plan), task), plan)
    return [(plan, task) for (_, task), plan in needed.items()]


def _configurations(tables: _Tables, catalog: Catalog) -> list[multiway.Configuration]:
    if not tables.plan_labels.height:
        return []
    return multiway.configurations(tables.plan_labels, domains=catalog.domains, counted=tables.counted)


def _section(
    units: Units,
    trained: Mapping[Direction, Any],
    tables: _Tables,
    catalog: Catalog,
    rivals: Sequence[str],
    held_out_folds: int,
    settings: _Settings,
    progress: Progress,
) -> dict[str, Any]:
    along = list(trained)
    options = asdict(settings)
    predictions = {pairwise.LEARNED: {d: predict_units(model, tables.features, units) for d, model in trained.items()}}
    rows = {}
    if rivals or held_out_folds:
        rows = rows_of(tables.features, tables.labels, actions=units.actions, counted=tables.counted, along=along)
    if rivals:
        progress(f"training {', '.join(rivals)}", 0.0)
        predictions |= rival_predictions(units, tables.features, rows, models(rivals, seed=settings.seed))
    section: dict[str, Any] = {"pairwise": pairwise.summarise(units, predictions, along=along, **options), "plans": {}}
    if held_out_folds:
        try:
            section["held_out_experts"] = held_out_experts(
                units,
                tables.features,
                {along[0]: rows[along[0]]},
                models(HELD_OUT, seed=settings.seed),
                folds=held_out_folds,
                progress=progress,
                **options,
            )
        except SelectionError as error:
            # A small catalog has too few pairs left once experts are held out; the rest of the report stands.
            section["held_out_experts"] = {"not_computed": str(error)}
    found = _configurations(tables, catalog)
    own = multiway.of_own_design(found, [str(a) for a in catalog.actions("paper")])
    if units.target != "expert_task":
        own = multiway.over_parents(found, own, domains=catalog.domains, tasks=catalog.task_ids)
    if own:
        progress("multi-way plans", 0.9)
        splits = {(a, b): s for x, y, s in zip(units.a, units.b, units.split, strict=True) for a, b in ((x, y), (y, x))}
        section["plans"] = multiway.summarise(
            own,
            {direction: plan_chooser(model, tables.features) for direction, model in trained.items()},
            best_fixed={d: units.actions[best_fixed(units, d.chosen_on)] for d in trained},
            actions=units.actions,
            alone=standalone(tables.scores, counted=tables.counted),
            base=catalog.base.id,
            splits=splits,
            min_gap=settings.min_gap,
            draws=settings.draws,
            seed=settings.seed,
        )
    return section


def plan_chooser(selector: Any, features: pl.DataFrame, **options: Any) -> multiway.Chooser:
    """The selector's best plan over all orders and operators of given checkpoints, found without executing any.

    Asked for several tasks, it takes the plan with the highest mean of the predictions on them. Further options are
    those of `planning.search`.
    """
    from simmerge_core.planning import search

    def choose(task: str | tuple[str, ...], members: tuple[str, ...]) -> multiway.Choice:
        ranked = search(selector, features, list(members), task, k=len(members), top=1, **options)
        first = ranked.row(0, named=True)
        plan = plan_of(first["order"], first["actions"])
        expected = (first["predicted_utility"], first["uncertainty"], first["low"], first["high"])
        return multiway.Choice(plan, *expected)

    return choose


def _protocol(
    action_set: str,
    units: Units,
    trained: Mapping[Direction, Any],
    counted: pl.DataFrame,
    settings: _Settings,
) -> dict[str, Any]:
    """The rules behind the figures, in the report itself."""
    mean_of = (
        "the utility on the expert's task"
        if units.target == "expert_task"
        else "the mean of the utilities on both parents' tasks"
    )
    honest = all(d.honest for d in trained)
    return {
        "action_set": action_set,
        "target": units.target,
        "utility": mean_of,
        "metric": sorted(set(counted["metric"].to_list())),
        "split": "test",
        "item_sets": list(units.item_sets),
        "directions": [str(d) for d in trained],
        "honest": honest,
        "choice": (
            "selector, best fixed actions and oracle choose from the first item set of each direction; figures are on "
            "the second" + (", averaged over the directions" if len(trained) > 1 else "")
            if honest
            else "the catalog declares one item set, so choices are scored on the items they were made from: optimistic"
        ),
        "plans": (
            "configurations in the design of a task, utility on that task; the oracle chooses among all executed plans "
            "of the action set"
            if units.target == "expert_task"
            else f"the configurations of {multiway.ALL_PARENTS_K} checkpoints in the design of a task, once per such "
            "task; utility is the mean over the tasks of all their checkpoints, and expert and auxiliary are the means "
            "over these tasks of each task's own expert and of the others on it. Executed are the selector's plan, its "
            "operators in every order, and the best fixed action (mean over both parents' tasks of the training pairs) "
            "with the expert of the configuration's task last, over the orders of the others. The oracle chooses among "
            "these, for every direction, and any other plan scored on all these tasks (mean_pool says how many): it is "
            "not the best of all plans. Intervals resample the experts of the configurations' tasks"
        ),
        "selector_keys": {str(d): str(getattr(model, "key", "")) for d, model in trained.items()},
        "ties": f"a choice is right if its utility equals the best; within_tolerance allows {settings.within}",
        "gap_closed": (
            "of each task's mean scores, then the mean over tasks; a task is left out where "
            f"|expert - auxiliary| < {settings.min_gap}; "
            "gap_closed_per_merge averages the merges' own values under the same guard"
        ),
        "interval": (
            f"95 % percentile bootstrap, {settings.draws} draws, seed {settings.seed}, resampling "
            + (
                "experts: a pair goes with its expert"
                if units.target == "expert_task"
                else "checkpoints: a pair's weight is the product of how often its two parents were drawn"
            )
        ),
        "seed": settings.seed,
        "draws": settings.draws,
    }


def _counts(catalog: Catalog, labels: pl.DataFrame, plan_labels: pl.DataFrame) -> dict[str, Any]:
    domains = np.array(list(catalog.domains.values()))
    return {
        "checkpoints": len(catalog.checkpoints),
        "checkpoints_by_domain": {str(d): int((domains == d).sum()) for d in np.unique(domains)},
        "tasks": list(catalog.task_ids),
        "merges_labelled": labels["recipe_key"].n_unique(),
        "evaluations_labelled": labels["evaluation_key"].n_unique(),
        "plans_executed": plan_labels.select("task", "recipe_key").n_unique() if plan_labels.height else 0,
    }
