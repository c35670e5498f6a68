"""The comparison as flat rows for programs that read the JSON: every method under every split, k and protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

METHOD_FIGURES = ("utility", "gap_closed", "min_gap_closed", "accuracies", "within_tolerance", "regret")
_NAMES = {"accuracies": "accuracy", "within_tolerance": "within"}
_NO_METHODS = ("tolerance",)
_PLAN_METHODS = "gap_closed"


def comparison_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per action set, split, k and method of a report.

    Returns
    -------
    list of dict
        ``split`` (pairs, held_out_experts, configurations), ``k``, ``protocol`` (the directions of choosing and
        scoring, and whether they are honest), ``actions``, ``target``, ``method``, and the figures that the method has:
        utility, gap_closed, min_gap_closed, accuracy, within, regret, and ``captured`` with its interval.
    """
    rows: list[dict[str, Any]] = []
    for action_set, section in (("paper", report), ("extended", report.get("extended", {}))):
        if "pairwise" not in section:
            continue
        rules = section["protocol"]
        about = {
            "actions": action_set,
            "target": rules["target"],
            "protocol": {"directions": rules["directions"], "honest": rules["honest"], "metric": rules["metric"]},
        }
        rows += pair_rows(section["pairwise"], {"split": "pairs", "k": 2, **about})
        held_out = section.get("held_out_experts", {})
        if "utility" in held_out:
            rows += pair_rows(held_out, {"split": "held_out_experts", "k": 2, **about})
        for k, figures in section.get("plans", {}).items():
            rows += plan_rows(figures, {"split": "configurations", "k": int(k), **about})
    return rows


def pair_rows(section: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of a pairwise section, each led by `about`."""
    for method in section["utility"]:
        row: dict[str, Any] = {**about, "method": method}
        for figure in METHOD_FIGURES:
            if method in section.get(figure, {}):
                row[_NAMES.get(figure, figure)] = section[figure][method]
        if method in section.get("captured", {}):
            row["captured"] = section["captured"][method]
        yield row


def plan_rows(section: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of one k of the multi-way comparison, each led by `about`."""
    for method, closed in section.get(_PLAN_METHODS, {}).items():
        if method in section:
            yield {**about, "method": method, "utility": section[method], "gap_closed": closed}
