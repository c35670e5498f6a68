"""A report's comparison as flat rows, from a small report made by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simmerge_core.analysis.comparisons import comparison_rows, pair_rows, plan_rows

RULES = {"directions": ["A->B", "B->A"], "honest": True, "metric": "acc,none", "draws": 4000}
CAPTURED = {"value": 0.8, "ci95": [0.5, 0.9]}


def _report() -> dict[str, Any]:
    pairwise = {
        "utility": {"simmerge": 0.71, "best_fixed": 0.65, "parent_expert": 0.7},
        "gap_closed": {"simmerge": 81.0, "best_fixed": 60.0, "parent_expert": 100.0},
        "accuracies": {"simmerge": 0.6, "best_fixed": 0.4},
        "within_tolerance": {"simmerge": 0.9, "best_fixed": 0.5, "tolerance": 0.01},
        "regret": {"simmerge": 0.01},
        "captured": {"simmerge": CAPTURED},
        "test_pairs": 7,
    }
    held_out = {"utility": {"simmerge": 0.69, "best_fixed": 0.64}, "regret": {"best_fixed": 0.05}, "folds": [["x"]]}
    plans = {
        "3": {"simmerge": 0.5, "oracle": 0.6, "configurations": 4, "gap_closed": {"simmerge": 40.0, "oracle": None}},
        "4": {"simmerge": 0.45, "gap_closed": {"simmerge": 30.0, "random_plan": 10.0}},
        "5": {"configurations": 2},
    }
    wide = {
        "utility": {"simmerge": 0.8, "random": 0.6},
        "min_gap_closed": {"simmerge": 33.0, "random": 3.0},
        "gap_closed": {"simmerge": 91.0},
    }
    return {
        "protocol": {**RULES, "target": "expert_task"},
        "pairwise": pairwise,
        "held_out_experts": held_out,
        "plans": plans,
        "extended": {
            "protocol": {**RULES, "target": "both_tasks", "honest": False},
            "pairwise": wide,
            "held_out_experts": {"not_computed": "too few pairs"},
            "plans": {},
        },
    }


def test_every_method_once_per_action_set_split_and_size() -> None:
    rows = comparison_rows(_report())
    keys = [(row["actions"], row["split"], row["k"], row["method"]) for row in rows]
    assert sorted(keys) == sorted([
        ("paper", "pairs", 2, "simmerge"),
        ("paper", "pairs", 2, "best_fixed"),
        ("paper", "pairs", 2, "parent_expert"),
        ("paper", "held_out_experts", 2, "simmerge"),
        ("paper", "held_out_experts", 2, "best_fixed"),
        ("paper", "configurations", 3, "simmerge"),
        ("paper", "configurations", 3, "oracle"),
        ("paper", "configurations", 4, "simmerge"),
        ("extended", "pairs", 2, "simmerge"),
        ("extended", "pairs", 2, "random"),
    ])  # fmt: skip


def _figures(rows: list[dict[str, Any]], *key: object) -> dict[str, Any]:
    about = ("actions", "split", "k", "method")
    (row,) = [r for r in rows if tuple(r[name] for name in about) == key]
    return {name: value for name, value in row.items() if name not in (*about, "target", "protocol")}


def test_values_are_taken_over_and_missing_figures_are_left_out() -> None:
    rows = comparison_rows(_report())
    assert _figures(rows, "paper", "pairs", 2, "simmerge") == {
        "utility": 0.71,
        "gap_closed": 81.0,
        "accuracy": 0.6,
        "within": 0.9,
        "regret": 0.01,
        "captured": CAPTURED,
    }
    assert _figures(rows, "paper", "pairs", 2, "best_fixed") == {
        "utility": 0.65,
        "gap_closed": 60.0,
        "accuracy": 0.4,
        "within": 0.5,
    }
    assert _figures(rows, "paper", "pairs", 2, "parent_expert") == {"utility": 0.7, "gap_closed": 100.0}
    assert _figures(rows, "paper", "held_out_experts", 2, "best_fixed") == {"utility": 0.64, "regret": 0.05}
    assert _figures(rows, "extended", "pairs", 2, "random") == {"utility": 0.6, "min_gap_closed": 3.0}
    assert _figures(rows, "paper", "configurations", 3, "simmerge") == {"utility": 0.5, "gap_closed": 40.0}
    assert _figures(rows, "paper", "configurations", 3, "oracle") == {"utility": 0.6, "gap_closed": None}


def test_rows_say_under_which_rules_they_came_about() -> None:
    for row in comparison_rows(_report()):
        paper = row["actions"] == "paper"
        assert row["target"] == ("expert_task" if paper else "both_tasks")
        assert row["protocol"] == {"directions": ["A->B", "B->A"], "honest": paper, "metric": "acc,none"}


def test_rows_survive_json_and_leave_the_report_as_it_was() -> None:
    report = _report()
    rows = comparison_rows(report)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert report == _report()


@pytest.mark.parametrize("action_set", ["paper", "extended"])
def test_an_action_set_without_a_comparison_has_no_rows(action_set: str) -> None:
    report = _report()
    del (report if action_set == "paper" else report["extended"])["pairwise"]
    assert {row["actions"] for row in comparison_rows(report)} == {"paper", "extended"} - {action_set}
    assert comparison_rows({}) == []


def test_about_leads_each_row() -> None:
    about = {"split": "larger_models", "k": 2}
    (row,) = pair_rows({"utility": {"ridge": 0.5}}, about)
    assert row == {**about, "method": "ridge", "utility": 0.5}
    assert list(row)[:2] == ["split", "k"]
    assert list(plan_rows({"simmerge": 0.4}, about)) == []
