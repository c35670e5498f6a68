"""Figure of `budgets`: what trying merges is worth, against predicting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from simmerge_core.analysis.figures.style import MUTED, Form, colour, draw, quiet
from simmerge_core.experiments.drawings.estimates import Estimate, estimate, finite
from simmerge_core.experiments.drawings.heading import head
from simmerge_core.experiments.drawings.lines import Line, paint_lines
from simmerge_core.experiments.drawings.names import SETS
from simmerge_core.experiments.drawings.notes import along, note, pair_count
from simmerge_core.experiments.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALONE = "predict, evaluate none"
_ORDERS = (
    ("SimMerge's order", "simmerge", "predicted best, evaluate", ALONE),
    ("Order of training means", "best_fixed", "best on average, evaluate", "best fixed, evaluate none"),
    ("Random order", "random", "random, evaluate", None),
)
"""Name, colour, prefix of the methods that evaluate, and the method that evaluates none."""


def budgets(result: Result, form: Form) -> Mapping[str, bytes]:
    """A panel per action set."""
    names = [name for name in SETS if name in result.figures]
    tried = sorted({count for name in names for count in _counts(result.figures[name])})
    places = {count: float(number) for number, count in enumerate([0, *tried])}

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            section, own = result.figures[name], result.rows.filter(pl.col("actions") == name)
            alone = finite(section["utility"][ALONE]["value"])
            axes.axhline(alone, color=colour("simmerge"), linewidth=1.0, linestyle=(0, (4, 3)))
            paint_lines(axes, _lines(section, places), apart=0.09)
            shown = [0, *_counts(section)]
            axes.set_xticks([places[c] for c in shown], [str(c) for c in shown])
            axes.set_xlim(-0.4, max(places[c] for c in shown) + 0.4)
            axes.margins(y=0.12)
            axes.set_title(f"{SETS[name]} ({section['actions']}), {pair_count(own)} pairs", fontsize=10, pad=6)
            axes.tick_params(axis="y", labelsize=8.5)
            axes.locator_params(axis="y", nbins=6)
            quiet(axes)
        panels[0].set_ylabel("Utility of the best merge tried")
        panels[len(names) // 2].set_xlabel("Merges evaluated per pair", fontsize=9)
        head(
            figure, "Predicting against trying, on held-out pairs", about, legend=panels[0].get_legend_handles_labels()
        )

    about = note(
        along(result.rows),
        "bars: 95\u00a0% intervals of the difference from SimMerge without evaluating (dashed)",
        width=10.0,
    )
    return {"budgets": draw(paint, width=10.0, height=4.2, form=form)}


def _counts(section: Mapping[str, Any]) -> list[int]:
    prefix = _ORDERS[0][2]
    return sorted(int(name.removeprefix(prefix)) for name in section["utility"] if name.startswith(prefix))


def _lines(section: Mapping[str, Any], places: Mapping[int, float]) -> list[Line]:
    lines = []
    for name, tint, prefix, none in _ORDERS:
        methods = {0: none} if none else {}
        methods |= {count: f"{prefix} {count}" for count in _counts(section)}
        points = [(places[c], against_predicting(section, m)) for c, m in methods.items() if m in section["utility"]]
        lines.append(Line(name, points, MUTED if tint == "random" else colour(tint), strong=tint == "simmerge"))
    return lines


def against_predicting(section: Mapping[str, Any], method: str) -> Estimate:
    """The method's utility with the interval of its difference from predicting alone.

    Utilities share the spread between pairs, which would hide every difference; the paired interval shows it.
    """
    value = section["utility"][method]["value"]
    gain = estimate(section["gain_of_predicting"].get(method))
    if value is None or gain.ends is None or gain.value is None:
        return Estimate(value)
    alone = value + gain.value
    return Estimate(value, alone - gain.ends[1], alone - gain.ends[0])
