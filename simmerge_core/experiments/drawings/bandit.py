"""Figures of `bandit`: cumulative regret (Fig. 7) and what it means for the merges (Fig. 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from simmerge_core.analysis.figures.style import INK, MUTED, Form, colour, draw, label, quiet
from simmerge_core.experiments.bandit import cumulative
from simmerge_core.experiments.drawings.estimates import as_text
from simmerge_core.experiments.drawings.grouped import Bars, paint_groups
from simmerge_core.experiments.drawings.heading import head
from simmerge_core.experiments.drawings.notes import note
from simmerge_core.experiments.protocol import protocol
from simmerge_core.experiments.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = {
    "uniform": "Uniform",
    "best_fixed": "Best fixed",
    "frozen": "Frozen selector",
    "linucb": "LinUCB",
    "lints": "LinTS",
    "told_all": "LinTS, told all",
    "oracle": "Oracle",
}
_COLOURS = {
    "uniform": "#B4BAC1",
    "best_fixed": colour("best_fixed"),
    "frozen": "#009E73",
    "linucb": INK,
    "lints": colour("simmerge"),
    "told_all": "#7A5C99",
    "oracle": INK,
}
_TITLES = {
    "merges": "Merges of 2, 3 and 4, three operators",
    "pairs_paper": "Pairs, three operators",
    "pairs_extended": "Pairs, seven actions, both tasks",
}


def bandit(result: Result, form: Form) -> Mapping[str, bytes]:
    """Regret of every stream, and the changes against expert and auxiliary of three-way merges."""
    return {"fig_07_regret": _regret(result, form), "fig_08_online_deltas": _deltas(result, form)}


def _regret(result: Result, form: Form) -> bytes:
    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(result.figures), squeeze=False)[0]
        for axes, name in zip(panels, result.figures, strict=True):
            _paint_stream(axes, result.rows, name)
            axes.set_title(_TITLES[name], fontsize=10)
        panels[0].set_ylabel("Cumulative regret")
        seeds = result.figures["merges"]["seeds"]
        head(
            figure,
            "Regret against the oracle after a shift of domain",
            note(f"mean of {seeds} runs", "bands hold 5 to 95 % of them", "uniform leaves the picture", width=11.0),
            legend=panels[0].get_legend_handles_labels(),
        )

    return draw(paint, width=11.0, height=4.2, form=form)


def _paint_stream(axes: Axes, rows: pl.DataFrame, stream: str) -> None:
    top, merges = 0.0, 0
    for policy, name in _NAMES.items():
        if policy == "oracle":
            continue
        total = cumulative(rows, stream, policy)
        low, high = np.quantile(total, protocol().bandit.band, axis=0)
        merges = total.shape[1]
        rounds = np.arange(1, merges + 1)
        strong = policy in ("lints", "frozen")
        axes.fill_between(rounds, low, high, color=_COLOURS[policy], alpha=0.14, linewidth=0)
        axes.plot(
            rounds,
            total.mean(axis=0),
            color=_COLOURS[policy],
            linewidth=2.4 if strong else 1.6,
            linestyle=(0, (2, 2)) if policy == "linucb" else "-",  # it lies on LinTS
            zorder=3.0 if policy == "linucb" else 2.0,
            label=name,
        )
        if policy != "uniform":
            top = max(top, float(high[-1]))
    axes.set_xlim(0, merges + 1)
    axes.set_ylim(0, 1.15 * top)
    axes.set_xlabel("Merge", fontsize=9)
    quiet(axes)


def _deltas(result: Result, form: Form) -> bytes:
    section = result.figures["merges"]["deltas"]["3"]
    shown = ("uniform", "frozen", "lints", "oracle")
    tasks = sorted(section["lints"]["tasks"])

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, 2)
        for axes, side, name in zip(panels, ("expert", "auxiliary"), ("Δexpert (%)", "Δaux (%)"), strict=True):
            bars = []
            for policy in shown:
                heights = [section[policy]["tasks"][task][side] for task in tasks] + [section[policy][side]]
                labels = [as_text(h, 0, signed=True) if policy == "lints" else "" for h in heights]
                bars.append(Bars(_NAMES[policy], heights, _COLOURS[policy], labels))
            paint_groups(axes, [*map(label, tasks), "Mean"], bars, set_apart=True)
            axes.set_ylabel(name)
            axes.axhline(0, color=MUTED, linewidth=0.9)
            axes.tick_params(axis="x", labelsize=8.5)
            low, high = axes.get_ylim()
            axes.set_ylim(1.12 * low if low < 0 else low, 1.12 * high if high > 0 else high)
        head(
            figure,
            "What the choices are worth: three-way merges with a checkpoint of the new domain",
            note("change against the expert alone, and against the mean of the auxiliaries alone", width=11.0),
            legend=panels[0].get_legend_handles_labels(),
        )

    return draw(paint, width=11.0, height=4.2, form=form)
