"""The experiments' figures: every one is drawn in both forms, the same bytes each time, whatever is undefined."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from simmerge_core.analysis.figures.style import Form
from simmerge_core.experiments.drawings import (
    actions,
    budgets,
    curves,
    feature_groups,
    held_out,
    merge_sizes,
    pairs,
    plan_variants,
    plans,
    similarity_effects,
    subsets,
    transfer,
)
from simmerge_core.experiments.drawings.estimates import Estimate, as_text, estimate, with_means
from simmerge_core.experiments.drawings.gains import ranked
from simmerge_core.experiments.drawings.notes import along, beyond, left_out, note, pair_count
from simmerge_core.experiments.plan_variants import DEFAULT, SCORINGS
from simmerge_core.experiments.result import Result
from simmerge_core.experiments.similarity_effects import METRICS
from simmerge_core.experiments.subsets import RIVALS, SELECTED

PNG = b"\x89PNG\r\n\x1a\n"
TASKS = ("code", "math")
OPERATORS = ("linear", "slerp", "ties")
PAIRWISE = (*OPERATORS, "best_fixed", "simmerge", "oracle", "parent_expert", "parent_auxiliary")
PLANS = ("simmerge", "random_order", "expert_last_best_fixed", "oracle", *(f"random_order_{o}" for o in OPERATORS))
CHOOSERS = ("simmerge", "ridge", "norm_ratio", "best_fixed_per_task", "random", "oracle")


class Numbers:
    """Made-up figures, the same in each run."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def figure(self, low: float = -0.1, high: float = 1.1) -> dict[str, Any]:
        value = float(self.rng.uniform(low, high))
        return {"value": value, "ci95": [value - 0.2, value + 0.1], "share_of_draws_defined": 1.0}

    def figures(self, names: Any) -> dict[str, Any]:
        return {name: self.figure() for name in names}

    def per_task(self, methods: Any) -> dict[str, Any]:
        def cell() -> dict[str, float]:
            return {
                "mean": float(self.rng.uniform(0.1, 0.9)),
                "diff_expert": -0.1,
                "diff_aux": 0.2,
                "delta_expert": float(self.rng.uniform(-40, 0)),
                "delta_aux": float(self.rng.uniform(0, 90)),
                "gap_closed": float(self.rng.uniform(-10, 100)),
            }

        return {t: {"rows": 8, "expert": 0.8, "auxiliary": 0.2, "methods": {m: cell() for m in methods}} for t in TASKS}

    def comparison(self, target: str = "expert_task", captured: Any = CHOOSERS[:3]) -> dict[str, Any]:
        matrix = self.rng.integers(1, 9, (3, 3)).astype(float).tolist()
        return {
            "target": target,
            "pairs": 4,
            "folds": 2,
            "actions": [f"{o}@0.5" for o in OPERATORS],
            "guard": {"min_gap": 0.02, "excluded_tasks": [], "excluded_merges": 0},
            "accuracy": 0.5,
            "confusion": {"actions": list(OPERATORS), "matrix": matrix},
            "per_task": self.per_task(PAIRWISE),
            "gain_over_best_fixed": self.figures(CHOOSERS),
            "captured": self.figures(dict.fromkeys(("simmerge", *captured))),
            "gap_intervals": self.figures(PAIRWISE),
        }

    def plans(self) -> dict[str, Any]:
        return {
            "configurations": 3,
            "guard": {"min_gap": 0.02, "excluded_tasks": []},
            "per_task": self.per_task(PLANS),
            "points_over": self.figures(("random_order",)),
        }


def rows(**more: Any) -> pl.DataFrame:
    columns = {"direction": ["A->B", "B->A"], "a": ["math-1"] * 2, "b": ["code-1"] * 2, "actions": ["paper"] * 2}
    return pl.DataFrame(columns | more)


def _pairs() -> Result:
    n = Numbers()
    paper = n.comparison(captured=("simmerge", "ridge", "without_task_code"))
    paper["without_task_code"] = {key: paper[key] for key in ("confusion", "accuracy")}
    return Result(rows(), {"paper": paper, "extended": n.comparison("both_tasks")})


def _held_out() -> Result:
    n = Numbers()
    parts = {name: {kind: n.comparison() for kind in ("experts", "tasks")} for name in ("paper", "extended")}
    return Result(rows(held_out=["experts"] * 2), parts)


def _actions() -> Result:
    n = Numbers()
    sets = ("paper", "extended", "selected", "wide")
    figures: dict[str, Any] = {s: n.comparison("both_tasks") | {"held_out_experts": n.comparison()} for s in sets}
    steps = [["linear@0.5"], ["slerp@0.3", "slerp@0.7"], ["task_arithmetic@0.5,lam=0.2"]]
    figures["forward_selection"] = [
        {"added": s, "training_utility": 0.4 + 0.01 * i} for i, s in enumerate(steps)
    ]  # the last is above all actions, as it can be for an oracle that chooses from noise
    figures["all_training_utility"] = 0.415
    figures["points"] = {split: {s: n.figures(sets) for s in sets} for split in ("pairs", "held_out_experts")}
    return Result(rows(), figures)


def _budgets() -> Result:
    n = Numbers()
    methods = ["predict, evaluate none", "best fixed, evaluate none"]
    for count in (1, 2, 5):
        methods += [
            f"{m} {count}" for m in ("random, evaluate", "best on average, evaluate", "predicted best, evaluate")
        ]
    sections = {
        name: {"actions": 7, "utility": n.figures(methods), "gain_of_predicting": n.figures(methods)}
        for name in ("paper", "extended", "wide")
    }
    for method in [m for m in methods if m.endswith("5")]:
        del sections["paper"]["utility"][method]  # more merges than there are actions
    return Result(rows(), sections)


def _plans() -> Result:
    n = Numbers()
    return Result(rows(), {"paper": {"3": n.plans(), "4": n.plans()}, "extended": {"3": n.plans()}})


def _plan_variants() -> Result:
    n = Numbers()
    names = [s.name for s in SCORINGS]
    section = {"configurations": 3, "utility": n.figures(names), "gap_closed": n.figures(names)}
    section["gain_over_default"] = n.figures(name for name in names if name != DEFAULT)
    return Result(rows(), {"3": section, "4": copy.deepcopy(section)})


def _subsets() -> Result:
    n = Numbers()
    section = {"requests": 6, "utility": n.figures((SELECTED, *RIVALS)), "gain_of_selector": n.figures(RIVALS)}
    return Result(rows(), {"2": section, "3": copy.deepcopy(section)})


def _feature_groups() -> Result:
    n = Numbers()
    names = ("KL alone", "the paper's", "without kl", "without self", "without task code")
    sections = {name: n.comparison(captured=names) for name in ("paper", "extended")}
    sections["held_out_experts"] = n.comparison(captured=names[:2])
    del sections["held_out_experts"]["pairs"]
    sections["paper"]["captured"]["KL alone"] = {"value": 3.0, "ci95": [-9.0, 9.0]}
    return Result(rows(), sections)


def _curves() -> Result:
    n = Numbers()
    sizes = [f"{size} pairs, draw {draw}" for size in (60, 120) for draw in (1, 2, 3)]
    labels = ("half exact match, half probability", "probability of the answer")
    return Result(
        rows(),
        {
            "training_size": n.comparison(captured=sizes) | {"training_pairs": 130},
            "probe_size": n.comparison(captured=("8 prompts", "16 prompts")) | {"prompts": 64},
            "labels": n.comparison(captured=labels),
            "labels_judged_by_probability": n.comparison(captured=("exact match", *labels)),
        },
    )


def _similarity_effects() -> Result:
    n = Numbers()

    def entry() -> dict[str, Any]:
        return {
            "pearson": [n.figure(-1, 1) for _ in OPERATORS],
            "spearman": [n.figure(-1, 1) for _ in OPERATORS],
            "win_rates": n.rng.dirichlet([1.0] * 3, size=5).tolist(),
            "tails": n.rng.uniform(-0.5, 0.5, 3).tolist(),
        }

    sections = {
        s: {"rows": 20, "operators": list(OPERATORS), "metrics": {m: entry() for m in METRICS}}
        for s in ("PAIR", "QUAD", "TRIPLE")
    }
    return Result(rows(), sections)


def _transfer() -> Result:
    n = Numbers()
    captured = ("ridge", "own_selector", "best_fixed_carried")
    sections = {name: n.comparison(captured=captured) for name in ("paper", "extended")}
    return Result(rows(), {"parameter_ratio": 6.0, **sections, "plans": {"3": n.plans()}})


def drawing(draw: Callable[..., Mapping[str, bytes]], *results: Callable[[], Result]) -> Callable[..., Any]:
    """Draw from results that `change` has gone over."""

    def drawn(form: Form, change: Callable[[Any], Any] = lambda value: value) -> Mapping[str, bytes]:
        return draw(*(Result(r.rows, change(r.figures)) for r in (make() for make in results)), form)

    return drawn


CASES = {
    "pairs": (
        drawing(pairs.pairs, _pairs),
        {"fig_02_gap_closed", "fig_03_deltas", "fig_09_confusion", "fig_12_scores", "rivals"},
    ),
    "held_out": (drawing(held_out.held_out, _held_out), {"held_out"}),
    "actions": (drawing(actions.actions, _actions), {"forward_selection", "action_sets"}),
    "budgets": (drawing(budgets.budgets, _budgets), {"budgets"}),
    "plans": (drawing(plans.plans, _plans), {"fig_05_order"}),
    "merge_size": (drawing(merge_sizes.merge_size, _pairs, _plans), {"fig_04_merge_size"}),
    "trends": (drawing(merge_sizes.trends, _pairs, _plans), {"fig_10_11_trends"}),
    "plan_variants": (drawing(plan_variants.plan_variants, _plan_variants), {"plan_scoring"}),
    "subsets": (drawing(subsets.subsets, _subsets), {"subsets"}),
    "feature_groups": (drawing(feature_groups.feature_groups, _feature_groups), {"feature_groups"}),
    "curves": (drawing(curves.curves, _curves), {"training_size", "probe_size", "labels"}),
    "similarity_effects": (
        drawing(similarity_effects.similarity_effects, _similarity_effects),
        {"fig_15_correlations", "fig_16_win_rates", "fig_17_tails"},
    ),
    "transfer": (
        drawing(transfer.transfer, _transfer),
        {"fig_06_larger", "fig_13_deltas", "fig_14_gap_closed", "transfer"},
    ),
}


def backwards(value: Any) -> Any:
    """The same figures with every object's keys in another order, as a store may give them."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(v) for v in value] if isinstance(value, list) else value


def undefined(value: Any) -> Any:
    """Every second estimate, and the selector's figures on one task, undefined."""
    if isinstance(value, dict) and "ci95" in value:
        return value if value["value"] > 0.5 else {"value": None, "ci95": [None, None]}
    if isinstance(value, dict):
        found = {key: undefined(v) for key, v in value.items()}
        if "per_task" in found:
            cells = found["per_task"]["math"]["methods"]["simmerge"]
            found["per_task"]["math"]["methods"]["simmerge"] = dict.fromkeys(cells)
        return found
    return [undefined(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", CASES)
def test_svg_is_whole_and_the_same_bytes_in_any_order_of_keys_whatever_is_undefined(name: str) -> None:
    drawn, stems = CASES[name]
    pictures = drawn("svg", undefined)
    assert set(pictures) == stems
    for content in pictures.values():
        assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
        assert b"<dc:date>" not in content
    assert drawn("svg", lambda figures: backwards(undefined(figures))) == pictures


# Those with many panels take longest, and their shared pieces are drawn by the others too.
@pytest.mark.parametrize("name", sorted(set(CASES) - {"pairs", "similarity_effects", "transfer", "trends"}))
def test_png_is_of_a_readable_size(name: str) -> None:
    drawn, stems = CASES[name]
    pictures = drawn("png")
    assert set(pictures) == stems
    for content in pictures.values():
        assert content.startswith(PNG)
        width, height = struct.unpack(">II", content[16:24])
        assert 1200 <= width <= 1700
        assert 300 <= height <= 1200


def test_png_is_the_same_twice_and_follows_the_figures() -> None:
    drawn, _ = CASES["subsets"]
    pictures = drawn("png")
    assert drawn("png") == pictures
    assert drawn("png", undefined) != pictures


def test_means_are_over_the_same_tasks_for_every_method() -> None:
    found = with_means({"linear": [1.0, 2.0, 6.0], "simmerge": [3.0, None, 5.0]})
    assert found == {"linear": [1.0, 2.0, 6.0, 3.5], "simmerge": [3.0, None, 5.0, 4.0]}
    assert with_means({"linear": [None]}) == {"linear": [None, None]}


def test_numbers_have_a_true_minus_and_zero_no_sign() -> None:
    assert [as_text(v, 1, signed=True) for v in (-1.26, -0.01, 0.01, 2.0, None)] == ["−1.3", "0.0", "0.0", "+2.0", "–"]
    assert estimate({"value": 0.5, "ci95": [-0.25, 1.0]}).text(2) == "0.50 [−0.25, 1.00]"
    assert estimate({"value": 0.5, "ci95": [None, None]}).text(2) == "0.50"
    assert estimate(None).text(2) == "–"


def test_paired_interval_is_around_the_method_that_is_compared() -> None:
    section = {
        "utility": {"random, evaluate 1": {"value": 0.4, "ci95": [0.2, 0.6]}},
        "gain_of_predicting": {"random, evaluate 1": {"value": 0.1, "ci95": [0.05, 0.2]}},
    }
    found = budgets.against_predicting(section, "random, evaluate 1")
    assert (found.value, *(found.ends or ())) == pytest.approx((0.4, 0.3, 0.45))


def test_methods_are_ranked_by_the_first_section_that_knows_them() -> None:
    first = {"gain_over_best_fixed": {"b": {"value": 0.1}, "a": {"value": 0.1}, "lost": {"value": None}}}
    second = {"gain_over_best_fixed": {"a": {"value": 9.0}, "only here": {"value": 5.0}}}
    assert ranked([first, second]) == ["a", "b", "lost", "only here"]


def test_notes_say_what_a_figure_rests_on() -> None:
    assert along(rows()) == "chosen on items A, scored on B, and the reverse"
    assert along(rows().head(1)) == "chosen on items A, scored on B"
    assert pair_count(rows()) == 1
    assert left_out({"guard": {"min_gap": 0.02, "excluded_tasks": ["rag"]}}) == "without RAG (gap below 0.02)"
    assert beyond([Estimate(0.5, 0.0, 1.0)], (-1.0, 1.5)) == ""
    assert "−1 to 1.5" in beyond([Estimate(0.5, -2.0, 1.0)], (-1.0, 1.5))
    lines = note("a few words", "and many more of them " * 10, width=9.0).split("\n")
    assert lines[0].startswith("A few words; and")
    assert max(map(len, lines)) <= 135
    assert len(lines[-1]) > 60


def test_merge_size_leaves_out_tasks_whose_change_is_undefined_at_one_size() -> None:
    tables = {
        2: {"code": {"methods": {"linear": {"delta_aux": 10.0}}}, "math": {"methods": {"linear": {"delta_aux": 1.0}}}},
        3: {
            "code": {"methods": {"random_order_linear": {"delta_aux": 5.0}}},
            "math": {"methods": {"random_order_linear": {"delta_aux": None}}},
        },
    }
    assert merge_sizes.shared_tasks(tables, ["linear"], "delta_aux") == ["code"]
