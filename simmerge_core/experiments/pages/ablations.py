"""Tables of what was varied: feature groups, training sizes, probes, labels, plan scoring, subsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simmerge_core.experiments.pages.markdown import number, table, with_interval
from simmerge_core.experiments.plan_variants import DEFAULT
from simmerge_core.experiments.result import Result

_HEAD = ("selector", "utility", "of the oracle's gain", "default above, utility", "default above, GapClosed points")


def variants_table(section: Mapping[str, Any], names: Sequence[str], *, default: str = "default") -> str:
    """The default selector and its variants on the same pairs."""
    rows = [_row(default, "simmerge", section), *(_row(name, name, section) for name in names)]
    return table(_HEAD, rows)


def _row(shown: str, name: str, section: Mapping[str, Any]) -> list[str]:
    return [
        shown,
        number(section["utility"][name], 4),
        with_interval(section["captured"][name], 2),
        with_interval(section["gain_over"].get(name), 4, signed=True) if name != "simmerge" else "",
        with_interval(section["points_over"].get(name), signed=True) if name != "simmerge" else "",
    ]


def groups(result: Result) -> Mapping[str, str]:
    """Tables of `feature_groups`."""
    return {
        name: variants_table(
            section, [n for n in section["captured"] if n != "simmerge"], default="all, with task code"
        )
        for name, section in result.figures.items()
    }


def curves(result: Result) -> Mapping[str, str]:
    """Tables of `curves`."""
    figures = result.figures
    found = {
        name: variants_table(section, [n for n in section["captured"] if n != "simmerge"])
        for name, section in figures.items()
        if name != "training_size"
    }
    section = figures["training_size"]
    by_size: dict[str, list[str]] = {}
    for name in section["captured"]:
        if name != "simmerge":
            by_size.setdefault(name.partition(" ")[0], []).append(name)
    rows = [
        [
            size,
            str(len(names)),
            number(_mean([section["utility"][n] for n in names]), 4),
            number(_mean([section["captured"][n]["value"] for n in names]), 2),
            " ".join(with_interval(section["captured"][n], 2) for n in names),
        ]
        for size, names in by_size.items()
    ]
    whole = section["captured"]["simmerge"]
    rows.append(
        [
            f"{section['training_pairs']} (all)",
            "1",
            number(section["utility"]["simmerge"], 4),
            number(whole["value"], 2),
            with_interval(whole, 2),
        ]
    )
    head = ["training pairs", "draws", "utility", "of the oracle's gain", "each draw"]
    found["training_size"] = table(head, rows)
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def plan_variants(result: Result) -> Mapping[str, str]:
    """Tables of `plan_variants`."""
    found = {}
    for k, section in result.figures.items():
        rows = [
            [
                name,
                with_interval(section["utility"][name], 4),
                with_interval(section["gap_closed"][name]),
                "" if name == DEFAULT else with_interval(section["gain_over_default"][name], 4, signed=True),
            ]
            for name in section["utility"]
        ]
        head = ["scoring", "utility", "GapClosed, %", "above the default"]
        found[f"k{k}"] = table(head, rows)
    return found


def subsets(result: Result) -> Mapping[str, str]:
    """Tables of `subsets`."""
    found = {}
    for k, section in result.figures.items():
        rows = [
            [name, with_interval(value, 4), with_interval(section["gain_of_selector"].get(name), 4, signed=True)]
            for name, value in section["utility"].items()
        ]
        found[f"k{k}"] = table(["method", "mean score on the target's tasks", "selector above"], rows)
        found[f"k{k}_requests"] = str(section["requests"])
    return found


def uncertainty(result: Result) -> Mapping[str, str]:
    """Tables of `uncertainty`."""
    rows, apart = [], []
    for name in ("paper", "extended"):
        section = result.figures[name]
        for split, by_items in section["coverage"].items():
            for items, c in by_items.items():
                shares = (c["every_action"], c["chosen_action"], c["differences"].get("same_pair"))
                rows.append(
                    [
                        f"{name}, {split.replace('_', ' ')}, {items}",
                        str(c["merges"]),
                        number(100 * c["level"], 0),
                        *(number(None if s is None else 100 * s) for s in shares),
                        number(c["mean_half_width"], 3),
                    ]
                )
        a = section["apart"]
        shown = (a["chosen"], a["settled"], a["evaluate_all"])
        apart.append(
            [
                f"{name} ({a['actions']} actions)",
                number(a["mean_open"]),
                number(100 * a["holds_best"]),
                *(number(s, 4) for s in shown),
            ]
        )
    head = ["actions, split, items scored on", "merges", "level, %"]
    head += [
        "any action inside, %",
        "chosen action inside, %",
        "difference of two actions inside, %",
        "mean half-width",
    ]
    open_head = ["actions", "cannot be told apart, mean", "best is among them, %"]
    open_head += ["utility of the choice", "after evaluating those", "after evaluating all"]
    plans = [
        [f"{k}, {items}", str(c["plans"]), number(100 * c["chosen_plan"]), number(c["mean_error"], 4, signed=True)]
        for k, by_items in result.figures["plans"].items()
        for items, c in by_items.items()
    ]
    return {
        "coverage": table(head, rows),
        "apart": table(open_head, apart),
        "plans": table(["k, items scored on", "plans", "inside, %", "measured − predicted"], plans),
    }
