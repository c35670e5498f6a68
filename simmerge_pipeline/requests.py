"""A merge request's executed plan and what it is compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from simmerge_core.catalog import Catalog, MergeRequest
from simmerge_core.plans import Plan, plan_of
from simmerge_core.tables import MERGE_OUTCOMES, MERGE_PLANS, DataRoot
from simmerge_pipeline.plan_metadata import plan_metadata
from simmerge_pipeline.progress import Progress
from simmerge_pipeline.training import deciding_metrics, item_sets, labelled_pairs

if TYPE_CHECKING:
    from simmerge_core.planning import Target

_SAME = 1e-6  # utilities of one model, loaded from its folder and merged in memory
_RANDOM_PLANS = 3


@dataclass(frozen=True)
class Model:
    """A model that a request is answered with or compared with; a plan of one checkpoint is that checkpoint."""

    role: str
    plan: Plan
    predicted: float | None = None


def best_plan(ranked: pl.DataFrame) -> Plan:
    """The plan of rank 1 of a request's `merge_plans`."""
    row = ranked.filter(pl.col("rank") == 1).row(0, named=True)
    return plan_of(row["order"], row["actions"])


@dataclass(frozen=True)
class Executed:
    """A request's merged folder: what was merged, and the content that it had."""

    checkpoints: tuple[str, ...]
    fingerprints: tuple[str, ...]


def executed(root: DataRoot, request: MergeRequest) -> Executed | None:
    """What a request's folder was merged from, if it is the best plan that the request has, as it now asks."""
    from simmerge_core.merging import PROVENANCE

    file = root.folder("merged_checkpoints", merge_request=request.id) / PROVENANCE
    if not file.is_file() or not root.exists(MERGE_PLANS, merge_request=request.id):
        return None
    told = json.loads(file.read_text(encoding="utf-8"))
    best = best_plan(root.read(MERGE_PLANS, merge_request=request.id))
    if told["plan"]["text"] != str(best) or told["given"].get("request") != request.model_dump(mode="json"):
        return None
    return Executed(best.checkpoints, tuple(told["recipe"]["checkpoints"]))


INTERVALS = frozenset({"low", "high", "difference_low", "difference_high", "distinguishable"})
"""Columns of `merge_plans` that a bandit's plans have not: its uncertainty is a posterior's, not calibrated."""


def catalog_pool(catalog: Catalog, request: MergeRequest, prints: Mapping[str, str]) -> list[str]:
    """The checkpoints that a request may merge and that are there."""
    pool = catalog.checkpoint_ids if request.checkpoints == "all" else request.checkpoints
    return [c for c in pool if c in prints]


def comparable(features: pl.DataFrame, pool: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """The members of a pool whose features with each other are all there on the tasks, in the pool's order.

    A checkpoint whose probes failed or are late must not keep a request from the others: of those with gaps, the one
    with most is left out first, and of equals the one that was declared last.
    """
    rows = features.filter(pl.col("task").is_in(list(tasks)) & pl.col("a").is_in(pool) & pl.col("b").is_in(pool))
    there = set(rows.select("a", "b", "task").iter_rows())
    gaps = {a: {b for b in pool if b != a and not all({(a, b, t), (b, a, t)} <= there for t in tasks)} for a in pool}
    while any(gaps.values()):
        worst = max(reversed(gaps), key=lambda c: len(gaps[c]))
        del gaps[worst]
        gaps = {a: others - {worst} for a, others in gaps.items()}
    return list(gaps)


def plans_by_selector(
    root: DataRoot,
    request: MergeRequest,
    features: pl.DataFrame,
    pool: Sequence[str],
    target: Target,
    progress: Progress,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Plans as the trained selector ranks them, and what is known about them as metadata."""
    from simmerge_core.analysis import selector_folder
    from simmerge_core.planning import explain_plan, search, settle
    from simmerge_core.selector import Selector

    selector = Selector.load(selector_folder(root, request.actions))
    ranked = search(selector, features, pool, target, k=request.k, top=request.top, progress=progress)
    plan = best_plan(ranked)
    why = explain_plan(selector, features, plan.checkpoints, plan.actions, target)
    about = dict(plan_metadata(ranked, settle(ranked, selector, target), why))
    return ranked.with_columns(selector_key=pl.lit(selector.key)), about


def rivals(
    catalog: Catalog, root: DataRoot, request: MergeRequest, ranked: pl.DataFrame, prints: Mapping[str, str]
) -> list[Model]:
    """The request's plan, the plans that nobody had to search for over the same checkpoints, its parents, the base."""
    from simmerge_core.planning import expert_last_best_fixed, random_order
    from simmerge_core.selector import MODELS, training_rows

    plan = best_plan(ranked)
    features, labels = labelled_pairs(root, prints)
    rows = training_rows(
        features,
        labels,
        actions=catalog.actions(request.actions),
        metric=deciding_metrics(catalog),
        item_set=item_sets(catalog)[0],
    )
    action = MODELS["best_fixed"](rows).action  # type: ignore[attr-defined]
    members, domains = sorted(plan.checkpoints), catalog.domains
    # The same checkpoints, so that what is compared is order and operators.
    last = expert_last_best_fixed(members, domains, request.targets[0], action=action, one_per_domain=False)
    drawn = [
        random_order(members, domains, request.targets[0], action=action, one_per_domain=False, seed=seed)
        for seed in range(_RANDOM_PLANS)
    ]
    # A bandit is rewarded after every step of its plan.
    earlier = range(2, plan.k) if request.policy != "selector" else ()
    return [
        Model("simmerge", plan, float(ranked["predicted_utility"][0])),
        *(Model("step", Plan(plan.checkpoints[:k], plan.actions[: k - 1])) for k in earlier),
        Model("expert_last_best_fixed", last),
        *(Model("random_order", other) for other in dict.fromkeys(drawn)),
        *(Model("parent", plan_of([member], [])) for member in plan.checkpoints),
        Model("base", plan_of([catalog.base.id], [])),
    ]


def outcome_rows(models: Sequence[Model], tasks: Sequence[str], scores: pl.DataFrame) -> pl.DataFrame:
    """Rows of table `merge_outcomes` from the scores of every (model, task), models outermost."""
    described = [(model.role, str(model.plan), model.predicted) for model in models for _ in tasks]
    about = pl.DataFrame(
        described, schema={"role": pl.String, "model": pl.String, "predicted_utility": pl.Float64}, orient="row"
    ).with_row_index("request")
    joined = scores.join(about.cast({"request": pl.Int64}), on="request", how="left", maintain_order="left")
    return joined.select(MERGE_OUTCOMES.schema.keys())


def score_folder(folder: Path, catalog: Catalog, tasks: Sequence[str], rows: pl.DataFrame, *, device: str) -> list[str]:
    """Score the merged folder as anybody would who loads it; where that differs from the same merge made in memory."""
    from simmerge_core.evaluation import evaluate

    keys = ["benchmark", "metric", "item_set", "seed"]
    differing = []
    for task in tasks:
        of_folder = evaluate(folder, catalog.task(task), device=device)
        in_memory = rows.filter((pl.col("role") == "simmerge") & (pl.col("task") == task))
        both = in_memory.join(of_folder, on=keys, how="left", suffix="_folder", maintain_order="left")
        for row in both.iter_rows(named=True):
            if row["utility_folder"] is None or abs(row["utility"] - row["utility_folder"]) > _SAME:
                place = f"{task} {row['benchmark']} {row['metric']} {row['item_set']}"
                differing.append(f"{place}: {row['utility']} in memory, {row['utility_folder']} from the folder")
    return differing
