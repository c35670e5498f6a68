"""Tables of the online experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simmerge_core.experiments.pages.markdown import number, table, with_interval
from simmerge_core.experiments.protocol import protocol
from simmerge_core.experiments.result import Result

NAMES = {
    "uniform": "uniform",
    "best_fixed": "best fixed action of the labels",
    "frozen": "frozen selector",
    "not_updated": "LinTS's start, never updated",
    "lints": "**LinTS**",
    "linucb": "LinUCB",
    "told_all": "LinTS, told what every action brings",
    "oracle": "oracle",
}


def bandit(result: Result) -> Mapping[str, str]:
    """Regret of each stream, changes against expert and auxiliary, tuning, and the bars."""
    found = {"bars": _bars(result.figures["merges"])}
    for name, section in result.figures.items():
        found[f"{name}_about"] = _about(section)
        found[f"{name}_regret"] = _regret(section)
        found[f"{name}_tuned"] = _tuned(section)
    found["merges_deltas"] = _deltas(result.figures["merges"]["deltas"], ("3", "all"))
    return found


def _about(section: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{count} of {k} checkpoints" for k, count in section["by_k"].items())
    return (
        f"{section['merges']} merges ({sizes}), {len(section['actions'])} actions, {section['seeds']} runs in random "
        f"order; {section['warm_pairs']} pairs labelled before; z has {section['dimension']} coordinates."
    )


def _regret(section: Mapping[str, Any]) -> str:
    early = section["early"]
    longer = early["merges"] < section["merges"]
    head = [
        "policy",
        *([f"after {early['merges']}"] if longer else []),
        f"regret after {section['merges']} (5 to 95 % of runs)",
        "of uniform's",
        "of the frozen selector's",
        "above LinTS's start, ‰ per merge",
        "per merge, last quarter",
    ]
    rows = []
    for policy, figures in section["regret"].items():
        low, high = figures["band"]
        band = f" ({number(low, 2)} to {number(high, 2)})" if high - low > 1e-9 else ""
        rows.append(
            [
                NAMES[policy],
                *([number(early["regret"][policy], 2)] if longer else []),
                f"{number(figures['mean'], 2)}{band}",
                with_interval(figures["of_uniform"], 2),
                with_interval(figures["of_frozen"], 2),
                with_interval(figures["above_start"], 1, signed=True, scale=1000.0),
                number(figures["last_quarter"], 4),
            ]
        )
    return table(head, rows)


def _tuned(section: Mapping[str, Any]) -> str:
    rows = [
        [NAMES[policy].strip("*"), *(f"{value:g}" for value in tuning["chosen"].values()), ", ".join(tuning["shifts"])]
        for policy, tuning in section["tuned"].items()
    ]
    return table(["policy", "exploration", "regularisation", "weight of a label", "domains held out"], rows)


def _deltas(deltas: Mapping[str, Any], kinds: tuple[str, ...]) -> str:
    titles = {"3": "three-way", "all": "all"}
    head = ["policy", *(f"{titles[kind]}: {side}" for kind in kinds for side in ("Δexpert", "Δaux"))]
    rows = [
        [
            NAMES[policy],
            *(number(deltas[kind][policy][s], 1, signed=True) for kind in kinds for s in ("expert", "auxiliary")),
        ]
        for policy in deltas["all"]
    ]
    return table(head, rows)


def _bars(section: Mapping[str, Any]) -> str:
    rules = protocol().bandit.bars
    rows = []
    for name, key, most in (
        ("LinTS's regret as a share of uniform's", "of_uniform", rules.regret_of_uniform),
        ("LinTS's regret as a share of the frozen selector's", "of_frozen", rules.regret_of_frozen),
    ):
        figure = section["regret"]["lints"][key]
        met = figure["value"] < most if most == 1.0 else figure["value"] <= most
        rows.append([name, f"{'<' if most == 1.0 else '≤'} {most:g}", with_interval(figure, 2), "yes" if met else "no"])
    return table(["bar", "set", "reached", "met"], rows)
