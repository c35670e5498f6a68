"""Tables of the pairwise comparisons: pairs, held-out experts and domains, wide actions, budgets, transfer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simmerge_core.analysis.pairwise import method_name
from simmerge_core.experiments import paper_figures as paper
from simmerge_core.experiments.pages.markdown import number, table, with_interval
from simmerge_core.experiments.result import Result

METHODS = {
    "simmerge": "**SimMerge**",
    "mlp": "the paper's MLP",
    "ridge": "ridge",
    "gradient_boosting": "gradient boosting",
    "extra_trees": "extra trees",
    "nearest_neighbour": "nearest neighbours",
    "norm_ratio": "norm-ratio rule",
    "adapted": "**SimMerge**, behaviour standardised here",
    "own_selector": "selector trained here",
    "best_fixed": "best fixed action",
    "best_fixed_carried": "best fixed, carried over",
    "best_fixed_per_task": "best fixed per task",
    "random": "random action",
    "linear": "linear",
    "slerp": "SLERP",
    "ties": "TIES",
    "oracle": "honest oracle",
    "oracle_same_items": "oracle, same items",
    "keep_better_parent": "keep the better parent",
    "parent_expert": "the expert alone",
    "parent_auxiliary": "the auxiliary alone",
    "base": "the base alone",
}


def methods_table(section: Mapping[str, Any], *, actions: bool = False) -> str:
    """Every method with utility, GapClosed, accuracy, within .01, regret, and the selector's gain over it."""
    shown = [m for m in METHODS if m in section["utility"]]
    if actions:
        shown += [m for m in section["utility"] if m not in METHODS and m != "without_task_code"]
    rows = []
    for method in shown:
        captured = section["captured"].get(method)
        rows.append(
            [
                METHODS.get(method, f"`{method}`"),
                number(section["utility"][method], 4),
                with_interval(section["gap_intervals"][method]),
                with_interval(captured, 2),
                number(_percent(section["accuracies"].get(method))),
                number(_percent(section["within_tolerance"].get(method))),
                number(section["regret"].get(method), 4),
                "" if method == "simmerge" else with_interval(section["points_over"].get(method), signed=True),
            ]
        )
    head = [
        *("method", "utility", "GapClosed, %", "of the oracle's gain", "accuracy, %"),
        *("within .01, %", "regret", "SimMerge above, points"),
    ]
    return table(head, rows)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100.0 * value


def pairs(result: Result) -> Mapping[str, str]:
    """Tables of `pairs`."""
    found = {}
    for name in ("paper", "extended"):
        section = result.figures[name]
        found[name] = methods_table(section)
        found[f"{name}_noise"] = (
            f"{section['pairs']} test pairs, two directions each; the best of A is the best of B in "
            f"{number(100 * section['winner_agreement'])} %, exact ties in {number(100 * section['tie_share'])} %."
        )
    found["minimum"] = minimum_table(result.figures["extended"]["minimum"])
    section = result.figures["paper"]
    tasks = list(section["per_task"])
    rows = []
    for method in ("linear", "slerp", "ties", "best_fixed", "simmerge", "oracle"):
        cells = [number(section["per_task"][t]["methods"][method]["gap_closed"]) for t in tasks]
        theirs = paper.PAIR_GAP_CLOSED.get(method, {})
        cells = [f"{c} ({number(theirs[t])})" if t in theirs else c for c, t in zip(cells, tasks, strict=True)]
        whole = number(section["gap_closed"][method])
        rows.append([METHODS[method], *cells, f"{whole} ({number(theirs['macro'])})" if theirs else whole])
    found["per_task"] = table(["GapClosed, % (paper)", *tasks, "macro"], rows)
    rows = [
        [
            task,
            METHODS[method],
            *(number(entry["methods"][method][key], 3) for key in ("mean", "diff_expert", "diff_aux")),
            *(number(entry["methods"][method][key]) for key in ("delta_expert", "delta_aux")),
        ]
        for task, entry in section["per_task"].items()
        for method in ("linear", "slerp", "ties", "simmerge")
    ]
    found["table_1"] = table(["task", "method", "mean", "− expert", "− auxiliary", "Δexpert, %", "Δaux, %"], rows)
    found["confusion"] = _confusion(section)
    wins = section["wins"]
    actions = list(wins["train"])
    rows = [[split, *(number(wins[split][a], 0) for a in actions)] for split in wins]
    published = [paper.TRAINING_WINS.get(method_name(a)) for a in actions]
    rows.append(["the paper's training merges", *(number(n, 0) for n in published)])
    found["wins"] = table(["best on A, pairs", *actions], rows)
    return found


def _confusion(section: Mapping[str, Any]) -> str:
    rows = []
    for label, part in (("with task code", section), ("without task code", section["without_task_code"])):
        matrix, names = part["confusion"]["matrix"], part["confusion"]["actions"]
        for number_, name in enumerate(names):
            mass = sum(matrix[number_])
            right = 100 * matrix[number_][number_] / mass if mass else None
            cells = [number(v) for v in matrix[number_]]
            rows.append([f"{name}, {label}", *cells, number(right), number(paper.CLASS_ACCURACY[label].get(name))])
    return table(["best on the scored items", *(f"chose {n}" for n in names), "right, %", "paper, %"], rows)


def minimum_table(section: Mapping[str, Any]) -> str:
    """MIN-GapClosed of the models, the best fixed action and the oracle."""
    shown = [m for m in METHODS if m in section["min_gap_closed"]]
    rows = [
        [
            METHODS[m],
            with_interval(section["min_gap_closed"][m]),
            with_interval(section["points_over_best_fixed"].get(m), signed=True),
        ]
        for m in shown
    ]
    return table(["method", "MIN-GapClosed, %", "points over the best fixed action"], rows)


def held_out(result: Result) -> Mapping[str, str]:
    """Tables of `held_out`."""
    return {
        f"{name}_{kind}": methods_table(result.figures[name][kind])
        for name in ("paper", "extended")
        for kind in ("experts", "tasks")
    }


def actions(result: Result) -> Mapping[str, str]:
    """Tables of `actions`."""
    figures = result.figures
    sets = ("paper", "extended", "selected", "wide")
    steps = [
        [str(i + 1), ", ".join(f"`{a}`" for a in step["added"]), number(step["training_utility"], 4)]
        for i, step in enumerate(figures["forward_selection"])
    ]
    steps.append(["all", f"{len(figures['wide']['actions'])} actions", number(figures["all_training_utility"], 4)])
    found = {"forward_selection": table(["step", "added", "honest oracle on training pairs"], steps)}
    for split, key in (("pairs", None), ("held_out_experts", "held_out_experts")):
        rows = []
        for name in sets:
            if key is not None and key not in figures[name]:
                continue
            section = figures[name] if key is None else figures[name][key]
            rows.append(
                [
                    f"{name} ({len(figures[name]['actions'])})",
                    *(number(section["gap_closed"][m]) for m in ("best_fixed", "simmerge", "oracle")),
                    with_interval(section["captured"]["simmerge"], 2),
                    *(
                        with_interval(figures["points"][split].get(name, {}).get(other), signed=True)
                        for other in ("paper", "extended", "wide")
                    ),
                ]
            )
        head = [
            *("set (actions)", "best fixed", "SimMerge", "honest oracle", "of the oracle's gain"),
            *(f"points over best fixed of {other}" for other in ("paper", "extended", "wide")),
        ]
        found[split] = table(head, rows)
    for key, held in (("minimum", False), ("minimum_held_out_experts", True)):
        rows = []
        for name in sets:
            if held and "held_out_experts" not in figures[name]:
                continue
            section = (figures[name]["held_out_experts"] if held else figures[name])["minimum"]
            rows.append(
                [
                    name,
                    *(with_interval(section["min_gap_closed"][m]) for m in ("best_fixed", "simmerge", "oracle")),
                    with_interval(section["points_over_best_fixed"]["simmerge"], signed=True),
                ]
            )
        found[key] = table(["set", "best fixed", "SimMerge", "honest oracle", "points over best fixed"], rows)
    found["wide"] = methods_table(figures["wide"], actions=True)
    return found


def budgets(result: Result) -> Mapping[str, str]:
    """Tables of `budgets`."""
    return {
        name: table(
            ["method", "utility", "gain of predicting alone"],
            [
                [m, with_interval(v, 4), with_interval(section["gain_of_predicting"][m], 4, signed=True)]
                for m, v in section["utility"].items()
            ],
        )
        for name, section in result.figures.items()
    }


def transfer(result: Result) -> Mapping[str, str]:
    """Tables of `transfer`."""
    figures = result.figures
    found = {name: methods_table(figures[name]) for name in ("paper", "extended")}
    rows = [
        [
            "nothing" if label == "simmerge" else label,
            *(with_interval(figures["standardised"][name]["captured"][label], 2) for name in ("paper", "extended")),
        ]
        for label in figures["standardised"]["paper"]["captured"]
    ]
    head = ["standardised on the larger catalog", "paper's actions, expert's task", "seven actions, both tasks"]
    found["standardised"] = table(head, rows)
    found["ratio"] = number(figures["parameter_ratio"])
    found["plans"] = plans_table(figures["plans"]["3"])
    found["plans_adapted"] = plans_table(figures["plans_adapted"]["3"])
    section = figures["plans"]["3"]
    rows = [
        [
            task,
            *(
                number(entry["methods"][m]["gap_closed"])
                for m in [*_fixed_orders(section), "expert_last_best_fixed", "simmerge", "oracle"]
            ),
            number(paper.LARGER_GAP_CLOSED.get(task)),
        ]
        for task, entry in section["per_task"].items()
    ]
    head = [
        "GapClosed, %",
        *_fixed_orders(section),
        "expert last",
        "SimMerge",
        "honest oracle",
        "paper's SimMerge, 111B",
    ]
    found["plans_per_task"] = table(head, rows)
    return found


def _fixed_orders(section: Mapping[str, Any]) -> list[str]:
    return [f"random_order_{o}" for o in ("linear", "slerp", "ties") if f"random_order_{o}" in section["gap_closed"]]


PLAN_METHODS = {
    "simmerge": "**SimMerge**: its order, its operators",
    "random_order": "its operators, random order",
    "expert_last_best_fixed": "expert last, best fixed operator",
    "random_order_linear": "linear, random order",
    "random_order_slerp": "SLERP, random order",
    "random_order_ties": "TIES, random order",
    "expert_last_linear": "linear, expert last",
    "expert_last_slerp": "SLERP, expert last",
    "expert_last_ties": "TIES, expert last",
    "random_plan": "random plan",
    "oracle": "honest oracle over the executed plans",
    "parent_expert": "the expert alone",
    "parent_auxiliary": "the auxiliaries alone",
    "keep_better_parent": "keep the better parent",
    "base": "the base alone",
}


def plans_table(section: Mapping[str, Any]) -> str:
    """Methods that choose a plan of k checkpoints."""
    gains = section["gain_over_expert_last_best_fixed"]
    rows = [
        [
            PLAN_METHODS[m],
            number(section[m], 4),
            with_interval(section["gap_intervals"][m]),
            "" if m == "simmerge" else with_interval(section["points_over"][m], signed=True),
            with_interval(gains.get(m), 4, signed=True),
        ]
        for m in PLAN_METHODS
        if m in section["gap_intervals"]
    ]
    return table(["plan", "utility", "GapClosed, %", "SimMerge above, points", "gain over expert last"], rows)


def plans(result: Result) -> Mapping[str, str]:
    """Tables of `plans`."""
    figures, found = result.figures, {}
    for k, section in figures["paper"].items():
        found[f"paper_{k}"] = plans_table(section)
        found[f"paper_{k}_counts"] = _counts(section)
        rows = []
        for task, entry in section["per_task"].items():
            for method in ("random_order_linear", "random_order_slerp", "random_order_ties", "simmerge"):
                if method not in entry["methods"]:
                    continue
                line = entry["methods"][method]
                theirs = paper.MULTIWAY_MEAN[int(k)].get(task, {}).get(method.removeprefix("random_order_"))
                rows.append(
                    [
                        *(task, PLAN_METHODS[method].removesuffix(": its order, its operators")),
                        *(number(line[key], 3) for key in ("mean", "diff_expert", "diff_aux")),
                        *(number(line[key]) for key in ("delta_expert", "delta_aux")),
                        number(theirs, 2),
                    ]
                )
        head = ["task", "method", "mean", "− expert", "− auxiliary", "Δexpert, %", "Δaux, %", "paper's mean"]
        found[f"table_{int(k) - 1}"] = table(head, rows)
    for k, section in figures["extended"].items():
        found[f"extended_{k}"] = plans_table(section)
        found[f"extended_{k}_counts"] = _counts(section)
    return found


def _counts(section: Mapping[str, Any]) -> str:
    text = (
        f"{section['configurations']} configurations, {section['configurations_without_training_pairs']} of them "
        "without a training pair of the task's expert and an auxiliary, "
        f"{section['configurations_without_any_training_pair']} without any pair that was trained on for whatever "
        f"task; {section['executed_plans']} executed plans, {number(section['mean_pool'])} per configuration for the "
        "oracle to choose among."
    )
    if "mean_rank_share" in section:
        text += f" The chosen plan beats {number(100 * section['mean_rank_share'])} % of the executed ones."
    return text
