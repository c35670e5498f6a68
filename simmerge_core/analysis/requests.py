"""Merge requests: what was predicted for the plan, what it scored when executed, and what each baseline scored."""

from __future__ import annotations

from typing import Any

import polars as pl

from simmerge_core.analysis.scores import task_scores
from simmerge_core.catalog import Catalog
from simmerge_core.catalog.model import MergeRequest
from simmerge_core.plans import plan_of


def summarise_requests(
    merge_plans: pl.DataFrame, merge_outcomes: pl.DataFrame, *, catalog: Catalog, counted: pl.DataFrame
) -> dict[str, Any]:
    """Per merge request: the plan ranked first, and the utility of each executed model on each item set.

    Parameters
    ----------
    merge_plans, merge_outcomes
        The tables of those names with their partition column ``merge_request``.

    Returns
    -------
    dict
        By request id: task, k, plan, predicted utility with its uncertainty, and ``models``: role, model, utility by
        item set (weighted mean or minimum over the request's tasks, as it asks); SimMerge's first, then from best to
        worst.
    """
    # Plans after an earlier step are a bandit's rewards, and nothing that a request could be answered with.
    models = merge_outcomes.filter(pl.col("role") != "step")
    scores = task_scores(models, by=["merge_request", "role", "model"], counted=counted)
    report: dict[str, Any] = {}
    known = {request.id: request for request in catalog.merge_requests}
    for row in merge_plans.filter(pl.col("rank") == 1).sort("merge_request").iter_rows(named=True):
        request = known.get(row["merge_request"])
        smallest = request is not None and request.how == "min"
        weight = pl.col("task").replace_strict(_weights(request), default=1.0, return_dtype=pl.Float64)
        mean = (pl.col("utility") * weight).sum() / weight.sum()
        over_tasks = pl.col("utility").min() if smallest else mean
        scored = (
            scores.filter(pl.col("merge_request") == row["merge_request"])
            .group_by("role", "model", "item_set")
            .agg(over_tasks)
            .sort("role", "model", "item_set")
        )
        listed: dict[tuple[str, str], dict[str, float]] = {}
        for role, model, item_set, utility in scored.iter_rows():
            listed.setdefault((role, model), {})[item_set] = utility
        report[row["merge_request"]] = {
            "task": row["task"],
            "how": "min" if smallest else "mean",
            "k": row["k"],
            "plan": str(plan_of(row["order"], row["actions"])),
            "order": row["order"],
            "actions": row["actions"],
            "predicted_utility": row["predicted_utility"],
            "uncertainty": row["uncertainty"],
            "search": row["search"],
            "models": _ordered(listed),
        }
    return report


def _weights(request: MergeRequest | None) -> dict[str, float]:
    """Weight by task where the request gives any."""
    if request is None or request.weights is None:
        return {}
    return dict(zip(request.targets, request.weights, strict=True))


def _ordered(listed: dict[tuple[str, str], dict[str, float]]) -> list[dict[str, Any]]:
    """SimMerge's model first, then by mean utility over the item sets, best first."""

    def place(entry: tuple[tuple[str, str], dict[str, float]]) -> tuple[bool, float, tuple[str, str]]:
        (role, model), utilities = entry
        return role != "simmerge", -sum(utilities.values()) / len(utilities), (role, model)

    return [
        {"role": role, "model": model, "utility": utilities}
        for (role, model), utilities in sorted(listed.items(), key=place)
    ]
