"""Figures of `similarity_effects`: correlations, win rates and tails (Fig. 15, 16, 17)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simmerge_core.analysis.figures.style import INK, MUTED, Form, colour, draw, label, quiet
from simmerge_core.experiments.drawings.estimates import Estimate, as_text, estimate, finite
from simmerge_core.experiments.drawings.heading import head
from simmerge_core.experiments.drawings.lines import Line, paint_lines
from simmerge_core.experiments.drawings.notes import note
from simmerge_core.experiments.result import Result
from simmerge_core.experiments.similarity_effects import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SETTINGS = {"PAIR": "o", "TRIPLE": "s", "QUAD": "^"}
_RELATIVE = "performance: score minus the operators' mean on the same merge"


def similarity_effects(result: Result, form: Form) -> Mapping[str, bytes]:
    """How similarity goes with the operators' success."""
    sections = {s: result.figures[s] for s in _SETTINGS if s in result.figures}
    return {
        "fig_15_correlations": _correlations(sections, form),
        "fig_16_win_rates": _win_rates(sections, form),
        "fig_17_tails": _tails(sections, form),
    }


def _shown(metric: str) -> str:
    return metric[:1].upper() + metric[1:]


def _counts(sections: Mapping[str, Any]) -> str:
    return "configurations: " + ", ".join(f"{s['rows']} {name}" for name, s in sections.items())


def _correlations(sections: Mapping[str, Any], form: Form) -> bytes:
    rows = [(metric, setting) for metric in METRICS for setting in sections]
    names = [f"{_shown(metric)}, {setting}" for metric, setting in rows]
    operators = next(iter(sections.values()))["operators"]
    cells = {
        kind: [[estimate(f) for f in sections[s]["metrics"][m][kind]] for m, s in rows]
        for kind in ("spearman", "pearson")
    }
    known = [abs(e.value) for table in cells.values() for line in table for e in line if e.value is not None]
    limit = max([*known, 0.1])

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, 2)
        images = []
        for number, (axes, (kind, table)) in enumerate(zip(panels, cells.items(), strict=True)):
            images.append(_paint_correlations(axes, table, limit))
            axes.set_title(kind.capitalize(), fontsize=10, pad=6)
            axes.set_xticks(range(len(operators)), [label(o) for o in operators])
            axes.set_yticks(range(len(rows)), names if number == 0 else [""] * len(rows))
            for edge in range(len(sections), len(rows), len(sections)):
                axes.axhline(edge - 0.5, color="white", linewidth=3.5)
        bar = figure.colorbar(images[0], ax=panels, shrink=0.7, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize=8)
        about = note(_counts(sections), _RELATIVE, "bold: the 95\u00a0% interval over experts excludes 0", width=9.6)
        head(figure, "Correlation of similarity with an operator's performance", about)

    return draw(paint, width=9.6, height=1.5 + 0.32 * len(rows), form=form)


def _paint_correlations(axes: Axes, table: Sequence[Sequence[Estimate]], limit: float) -> Any:
    values = np.array([[finite(e.value) for e in line] for line in table])
    image = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    for row, line in enumerate(table):
        for column, e in enumerate(line):
            clear = e.ends is not None and (e.ends[0] > 0 or e.ends[1] < 0)
            dark = e.value is not None and abs(e.value) > 0.65 * limit
            axes.annotate(
                as_text(e.value, 2, signed=True), (column, row), ha="center", va="center", fontsize=8.5,
                color="white" if dark else INK, fontweight="bold" if clear else "normal",
            )  # fmt: skip
    axes.set_xticks(np.arange(values.shape[1] - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(values.shape[0] - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _win_rates(sections: Mapping[str, Any], form: Form) -> bytes:
    metrics = list(METRICS)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(sections), len(metrics), sharex=True, sharey=True, squeeze=False)
        for line, (setting, section) in zip(panels, sections.items(), strict=True):
            for axes, metric in zip(line, metrics, strict=True):
                _paint_win_rates(axes, section["metrics"][metric]["win_rates"], section["operators"])
            line[0].set_ylabel(f"{setting} ({section['rows']})\nP(win) in %", fontsize=9)
        for axes, metric in zip(panels[0], metrics, strict=True):
            axes.set_title(_shown(metric), fontsize=10, pad=6)
        for axes in panels[-1]:
            axes.set_xlabel("fifth of the metric", fontsize=8.5)
        about = note("fifths of equal size, from the lowest values to the highest", "ties share a win", width=10.0)
        head(figure, "Win rates by fifths of a metric", about, legend=panels[0][0].get_legend_handles_labels())

    return draw(paint, width=10.0, height=1.3 + 1.55 * len(sections), form=form)


def _paint_win_rates(axes: Axes, rates: Sequence[Sequence[float | None]], operators: Sequence[str]) -> None:
    lines = [
        Line(
            label(operator),
            [(float(n + 1), Estimate(row[place]).scaled(100)) for n, row in enumerate(rates)],
            colour(operator, place),
        )
        for place, operator in enumerate(operators)
    ]
    paint_lines(axes, lines)
    axes.axhline(100 / len(operators), color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylim(-4, 104)
    axes.set_xticks(range(1, len(rates) + 1))
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.tick_params(labelsize=8.5)
    quiet(axes)


def _tails(sections: Mapping[str, Any], form: Form) -> bytes:
    operators = next(iter(sections.values()))["operators"]
    metrics = list(METRICS)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(operators), sharex=True, sharey=True, squeeze=False)[0]
        for place, (axes, operator) in enumerate(zip(panels, operators, strict=True)):
            axes.axvline(0, color=MUTED, linewidth=1.1)
            for number, (setting, section) in enumerate(sections.items()):
                values = [finite(section["metrics"][m]["tails"][place]) for m in metrics]
                heights = np.arange(len(metrics)) + 0.22 * (number - (len(sections) - 1) / 2)
                axes.hlines(heights, 0, np.nan_to_num(values), color=colour(operator, place), linewidth=1.2, alpha=0.5)
                axes.scatter(
                    values, heights, marker=_SETTINGS[setting], s=42, color=colour(operator, place),
                    edgecolor="white", linewidth=0.6, zorder=3,
                )  # fmt: skip
            axes.set_title(label(operator), fontsize=10, pad=6)
            axes.spines["left"].set_visible(False)
            axes.set_xlabel("ΔP(win)", fontsize=9)
            quiet(axes, grid="x")
            axes.tick_params(axis="x", labelsize=8.5)
        panels[0].set_yticks(range(len(metrics)), [_shown(m) for m in metrics])
        panels[0].set_ylim(len(metrics) - 0.5, -0.5)
        panels[0].tick_params(axis="y", labelcolor=INK)
        about = note(
            _counts(sections), "ΔP(win): win rate in the highest fifth of the metric minus the lowest", width=10.0
        )
        head(figure, "Tail effects", about, legend=_setting_handles(list(sections)))

    return draw(paint, width=10.0, height=1.7 + 0.5 * len(metrics), form=form)


def _setting_handles(settings: Sequence[str]) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=MUTED, marker=_SETTINGS[s], linestyle="", markersize=6.5) for s in settings]
    return handles, list(settings)
