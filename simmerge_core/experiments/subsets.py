"""Choosing what to merge from the whole catalog: one expert per target task, the order and the operators, at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis.bootstrap import cluster_weights, interval, weighted_mean
from simmerge_core.analysis.protocol import Direction, best_fixed
from simmerge_core.analysis.scores import task_scores
from simmerge_core.experiments.data import ExperimentData, Progress, part_of
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.result import Result
from simmerge_core.labels.pairs import fraction
from simmerge_core.operators.actions import parse_action
from simmerge_core.plans import Plan, plan_of
from simmerge_core.selector import Selector

SIZES = (2, 3)
"""Target tasks per request, and checkpoints per plan: one expert of each."""

RANDOM_SETS = 5
TOP = 5

SELECTED = "selector, whole catalog"
RIVALS = (
    "selector, evaluate its 5 best",
    "best experts, selector's order and operators",
    "best experts, best fixed action",
    "random experts, best fixed action",
    "best single checkpoint",
)


@dataclass(frozen=True)
class Request:
    """What a user asks for: one model for several tasks, judged by the mean of its scores on them."""

    tasks: tuple[str, ...]
    direction: Direction


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """Every pair and triple of tasks as a target, with the extended actions.

    Everything is chosen from the items of one set (experts by their own scores there, fixed actions on the training
    pairs, selectors trained there) and scored on the other, as everywhere. The selector may have learned from the very
    pairs of the catalog it searches, as it does for its user.
    """
    data = catalogs.full
    units = data.units("extended", "both_tasks")
    rows = {d: data.rows(units.actions, d) for d in data.along}
    data.train_ahead([(r, None) for r in rows.values()], part_of(progress, "training", 0, 3))
    selectors = {d: data.selector(r) for d, r in rows.items()}
    fixed = {d: units.actions[best_fixed(units, d.chosen_on)] for d in data.along}
    requests = [
        Request(tasks, d) for k in SIZES for tasks in combinations(data.catalog.task_ids, k) for d in data.along
    ]
    planned: list[dict[str, list[Plan]]] = []
    for number, request in enumerate(requests):
        part_of(progress, "searching", 1, 3)(" + ".join(request.tasks), number / len(requests))
        planned.append(_plans(data, selectors[request.direction], fixed[request.direction], request))
    wanted = {
        (plan, task): None
        for request, methods in zip(requests, planned, strict=True)
        for plans in methods.values()
        for plan in plans
        for task in request.tasks
    }
    scores = _executed(data, list(wanted), part_of(progress, "merging", 2, 3))
    return _summary(data, requests, planned, scores)


def _plans(data: ExperimentData, selector: Selector, fixed: str, request: Request) -> dict[str, list[Plan]]:
    """Plans of each method; of several, the first is taken, or all are tried where the method's name says so."""
    from simmerge_core.planning import search

    k, tasks = len(request.tasks), list(request.tasks)
    ids = list(data.catalog.checkpoint_ids)
    ranked = search(selector, data.features, ids, tasks, k=k, top=TOP)
    best = tuple(_best_expert(data, task, request.direction.chosen_on) for task in tasks)
    among = search(selector, data.features, best, tasks, k=k, top=1)
    found = {
        SELECTED: _of(ranked)[:1],
        RIVALS[0]: _of(ranked),
        RIVALS[1]: _of(among),
        RIVALS[2]: _any_order(best, fixed),
    }
    drawn = [
        tuple(_drawn(data, task, f"{'+'.join(tasks)}|{number}") for task in tasks) for number in range(RANDOM_SETS)
    ]
    return found | {RIVALS[3]: [plan for members in drawn for plan in _any_order(members, fixed)]}


def _of(ranked: pl.DataFrame) -> list[Plan]:
    return [plan_of(row["order"], row["actions"]) for row in ranked.iter_rows(named=True)]


def _any_order(members: Sequence[str], action: str) -> list[Plan]:
    """All orders, since a fixed action says nothing of the order; the first two are interchangeable."""
    step = parse_action(action)
    orders = [o for o in permutations(members) if o[0] < o[1] or step.mirrored() != step]
    return [Plan(order, (step,) * (len(members) - 1)) for order in orders]


def _best_expert(data: ExperimentData, task: str, item_set: str) -> str:
    own = [c for c, domain in data.catalog.domains.items() if domain == task]
    return max(own, key=lambda c: (data.alone[c, task, item_set], c))


def _drawn(data: ExperimentData, task: str, about: str) -> str:
    own = [c for c, domain in data.catalog.domains.items() if domain == task]
    return min(own, key=lambda c: fraction("subsets", about, c))


def _executed(
    data: ExperimentData, wanted: Sequence[tuple[Plan, str]], progress: Progress
) -> dict[tuple[str, str, str], float]:
    """Score by plan text, task and item set."""
    labels = data.execute(wanted, progress)
    texts = labels.with_columns(pl.col("order").list.join("\n"), pl.col("actions").list.join("\n"))
    found = task_scores(texts, by=["order", "actions"], counted=data.counted)
    return {
        (str(plan_of(order.split("\n"), actions.split("\n"))), task, item_set): value
        for task, order, actions, item_set, value in found.iter_rows()
    }


def _summary(
    data: ExperimentData,
    requests: Sequence[Request],
    planned: Sequence[Mapping[str, list[Plan]]],
    scores: Mapping[tuple[str, str, str], float],
) -> Result:
    def mean(plan: Plan, request: Request, item_set: str) -> float:
        return float(np.mean([scores[str(plan), task, item_set] for task in request.tasks]))

    def alone(checkpoint: str, request: Request, item_set: str) -> float:
        return float(np.mean([data.alone[checkpoint, task, item_set] for task in request.tasks]))

    records = []
    for request, methods in zip(requests, planned, strict=True):
        seen, scored = request.direction.chosen_on, request.direction.scored_on
        best = max(data.catalog.checkpoint_ids, key=lambda c, r=request, s=seen: (alone(c, r, s), c))  # type: ignore[misc]
        values = {RIVALS[4]: (best, alone(best, request, scored))}
        for name, plans in methods.items():
            if name == RIVALS[0]:
                chosen = max(plans, key=lambda plan, r=request, s=seen: mean(plan, r, s))  # type: ignore[misc]
                values[name] = (str(chosen), mean(chosen, request, scored))
            else:
                several = float(np.mean([mean(plan, request, scored) for plan in plans]))
                values[name] = (str(plans[0]) if len(plans) == 1 else f"mean of {len(plans)} plans", several)
        for name, (what, value) in values.items():
            records.append((len(request.tasks), "+".join(request.tasks), str(request.direction), name, what, value))
    frame = pl.DataFrame(records, schema=["k", "tasks", "direction", "method", "chosen", "utility"], orient="row")
    figures: dict[str, Any] = {}
    for k in SIZES:
        here = frame.filter(pl.col("k") == k)
        mine = here.filter(pl.col("method") == SELECTED)
        # Requests share tasks: their intervals resample tasks.
        clusters = np.array([text.split("+") for text in mine["tasks"].to_list()])
        noise = data.protocol.noise
        weights = cluster_weights(clusters, draws=noise.draws, seed=noise.seed)
        columns = {m: here.filter(pl.col("method") == m)["utility"].to_numpy() for m in (SELECTED, *RIVALS)}
        figures[str(k)] = {
            "requests": mine.height,
            "utility": {m: interval(weighted_mean(v), weights).as_dict() for m, v in columns.items()},
            "gain_of_selector": {
                m: interval(weighted_mean(columns[SELECTED] - v), weights).as_dict()
                for m, v in columns.items()
                if m != SELECTED
            },
        }
    return Result(frame.with_columns(pl.col("utility").cast(pl.Float32)), figures)
