"""Tables of the similarity effects and of the catalog."""

from __future__ import annotations

from collections.abc import Mapping

from simmerge_core.experiments.pages.markdown import number, table, with_interval
from simmerge_core.experiments.result import Result


def similarity_effects(result: Result) -> Mapping[str, str]:
    """Correlations, win rates per fifth, tails."""
    found = {}
    for kind in ("spearman", "pearson"):
        rows = [
            [f"{setting}, {metric}", *(with_interval(c, 2, signed=True) for c in entry[kind])]
            for setting, part in result.figures.items()
            for metric, entry in part["metrics"].items()
        ]
        found[kind] = table(["setting, metric", *_operators(result)], rows)
    rows = [
        [f"{setting}, {metric}", *(" → ".join(number(100 * r[i], 0) for r in entry["win_rates"]) for i in range(3))]
        for setting, part in result.figures.items()
        for metric, entry in part["metrics"].items()
    ]
    found["win_rates"] = table(["P(win) in %, lowest to highest fifth", *_operators(result)], rows)
    rows = [
        [f"{setting}, {metric}", *(number(t, 2, signed=True) for t in entry["tails"])]
        for setting, part in result.figures.items()
        for metric, entry in part["metrics"].items()
    ]
    found["tails"] = table(["ΔP(win)", *_operators(result)], rows)
    return found


def _operators(result: Result) -> list[str]:
    return list(next(iter(result.figures.values()))["operators"])
