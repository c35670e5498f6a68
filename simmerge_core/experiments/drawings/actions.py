"""Figures of `actions`: which few carry the headroom, and what choosing among each set is worth."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from simmerge_core.analysis.figures.style import INK, MUTED, Form, colour, draw, label, quiet
from simmerge_core.experiments.drawings.estimates import estimate
from simmerge_core.experiments.drawings.forest import Extent, Mark, Panel, Row, forest
from simmerge_core.experiments.drawings.heading import head
from simmerge_core.experiments.drawings.lines import span
from simmerge_core.experiments.drawings.names import SETS, method
from simmerge_core.experiments.drawings.notes import INTERVALS, along, note
from simmerge_core.experiments.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SERIES = ("best_fixed", "simmerge", "oracle")
_SPLITS = {"pairs": "Held-out pairs", "held_out_experts": "Held-out experts"}


def actions(result: Result, form: Form) -> Mapping[str, bytes]:
    """The forward selection, and GapClosed over each set."""
    return {"forward_selection": _forward_selection(result, form), "action_sets": _action_sets(result, form)}


def _forward_selection(result: Result, form: Form) -> bytes:
    steps = result.figures["forward_selection"]
    everything = result.figures["all_training_utility"]
    counts = list(accumulate(len(step["added"]) for step in steps))
    heights = [step["training_utility"] for step in steps]
    total = len(result.figures["wide"]["actions"])

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(everything, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            f"all {total} actions", (1, everything), (5, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=9, color=MUTED,
        )  # fmt: skip
        axes.plot(counts, heights, color=colour("best_fixed"), marker="o", markersize=6.5, linewidth=2.2)
        for x, y in zip(counts, heights, strict=True):
            above = y >= everything  # away from the line of all actions, and from the line to the next point
            axes.annotate(
                f"{y:.4f}", (x, y), (0, 8) if above else (5, -4), textcoords="offset points",
                ha="center" if above else "left", va="bottom" if above else "top", fontsize=8.5,
            )  # fmt: skip
        axes.set_xticks(counts, [_added(n, step["added"]) for n, step in zip(counts, steps, strict=True)], fontsize=8)
        axes.set_xlim(counts[0] - 0.45, counts[-1] + 0.45)
        axes.set_ylim(*span([*heights, everything], margin=0.22))
        axes.set_ylabel("Utility of the oracle (other items)")
        axes.set_xlabel("Actions to choose among, and what was added", fontsize=9)
        quiet(axes)
        head(figure, "Forward selection of actions on the training pairs", about)

    about = note("utility is the mean over both parents' tasks", "greedy; the test pairs took no part")
    return draw(paint, width=9.0, height=3.9, form=form)


def _added(count: int, names: list[str]) -> str:
    """Tick: how many, and the names of the new ones in short lines."""
    lines = [
        line for name in names for line in textwrap.wrap(f"+ {label(name)}".replace(",", ", ").replace("  ", " "), 15)
    ]
    return "\n".join([str(count), *lines])


def _action_sets(result: Result, form: Form) -> bytes:
    figures = result.figures
    panels = [_set_panel(figures, split, title) for split, title in _SPLITS.items()]
    about = note(
        f"{figures['wide']['pairs']} held-out pairs, both parents' tasks, {along(result.rows)}",
        INTERVALS,
        "points: SimMerge minus the best fixed of the paper's actions",
        width=10.0,
    )
    return forest(
        [panels],
        title="GapClosed by action set",
        note=about,
        form=form,
        width=10.0,
        extent=Extent(from_zero=False, shared=True),
    )


def _set_panel(figures: Mapping[str, Any], split: str, title: str) -> Panel:
    rows = []
    for number, name in enumerate(n for n in SETS if n in figures):
        section = figures[name] if split == "pairs" else figures[name].get(split)
        if section is None:
            continue  # a set whose actions were chosen with the held-out experts' pairs
        marks = [
            Mark(estimate(section["gap_intervals"].get(m)), colour(m), method(m), "D" if m == "oracle" else "o")
            for m in _SERIES
        ]
        points = estimate(figures["points"][split].get(name, {}).get("paper"))
        count = len(figures[name]["actions"])
        rows.append(Row(f"{SETS[name]} ({count})", marks, points.text(1, signed=True), apart=number > 0))
    return Panel(title, rows, "GapClosed (%)", "points")
