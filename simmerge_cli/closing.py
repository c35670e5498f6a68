"""The short tables that `simmerge demo` ends with, cut from the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simmerge_cli.output import note, print_table

_METHODS = {
    "simmerge": "SimMerge",
    "best_fixed_per_task": "best fixed operator per task",
    "best_fixed": "best fixed operator",
    "random": "random operator",
    "oracle": "oracle",
    "linear": "always Linear",
    "slerp": "always SLERP",
    "ties": "always TIES",
    "keep_better_parent": "no merge: the better parent",
}
_PLANS = {
    "simmerge": "SimMerge",
    "expert_last_best_fixed": "expert last, best fixed operator",
    "random_order": "random order",
    "oracle": "oracle",
}


def print_summary(report: Mapping[str, Any]) -> None:
    """What was predicted, what was executed, and how it compares with every baseline."""
    _requests(report.get("merge_requests", {}))
    _pairs(report)
    _plans(report.get("plans", {}))


def _requests(requests: Mapping[str, Any]) -> None:
    rows = []
    sets: set[str] = set()
    for id, request in requests.items():
        scores: dict[str, list[float]] = {}
        for model in request["models"]:
            # The selector learned from the first item set: what counts is the last.
            item_set = max(model["utility"])
            sets.add(item_set)
            scores.setdefault(model["role"], []).append(model["utility"][item_set])
        rows.append(
            (
                id,
                request["plan"],
                request["predicted_utility"],
                _mean(scores.get("simmerge")),
                _mean(scores.get("expert_last_best_fixed")),
                _mean(scores.get("random_order")),
                max(scores.get("parent", []), default=None),
                _mean(scores.get("base")),
            )
        )
    if rows:
        print_table(
            ("request", "plan", "predicted", "executed", "expert last", "random order", "best parent", "base"),
            rows,
            title=f"Plans that were chosen without merging, then executed; scores on items {', '.join(sorted(sets))}",
        )


def _mean(values: list[float] | None) -> float | None:
    return sum(values) / len(values) if values else None


def _pairs(report: Mapping[str, Any]) -> None:
    sections = [s for s in (report, report.get("extended")) if s is not None and "pairwise" in s]
    rows = []
    for method, label in _METHODS.items():
        values = [s["pairwise"][what].get(method) for s in sections for what in ("utility", "gap_closed")]
        if any(value is not None for value in values):
            rows.append((label, *values))
    names = [f"{kind}: {what}" for kind in ("paper", "extended") for what in ("utility", "GapClosed %")]
    if rows:
        print_table(("operator of a pair chosen by", *names[: 2 * len(sections)]), rows, title="Held-out pairs")
        for kind, section in zip(("paper", "extended"), sections, strict=False):
            pairwise = section["pairwise"]
            over = "the expert's task" if pairwise["target"] == "expert_task" else "the mean over both parents' tasks"
            note(f"{kind}: {pairwise['test_pairs']} pairs, {pairwise['split']} split, {over}.")


def _plans(plans: Mapping[str, Any]) -> None:
    rows = [
        (label, *(plans[k].get(method) for k in sorted(plans)))
        for method, label in _PLANS.items()
        if any(plans[k].get(method) is not None for k in plans)
    ]
    if rows:
        print_table(("plan chosen by", *(f"k = {k}" for k in sorted(plans))), rows, title="Mean utility of k-way plans")
