"""Forest plots: a row per method, a point with its interval, zero where nothing is gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simmerge_core.analysis.figures.style import INK, MUTED, Form, draw, quiet
from simmerge_core.experiments.drawings.estimates import Estimate
from simmerge_core.experiments.drawings.heading import head

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TINT = "#FBEDE4"
"""Behind the row that the figure is about."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with its interval.

    Attributes
    ----------
    series
        Its name in the legend; empty for none.
    stem
        Whether a line leads to it from zero, for values without an interval.
    """

    estimate: Estimate
    colour: str
    series: str = ""
    marker: str = "o"
    stem: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a panel.

    Attributes
    ----------
    marks
        From top to bottom; none where the panel knows nothing of this row.
    text
        At the right edge.
    strong
        Whether the figure is about this row.
    apart
        Whether a gap separates it from the row above.
    """

    name: str
    marks: Sequence[Mark]
    text: str = ""
    strong: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot; panels beside each other have the same rows, named once.

    Attributes
    ----------
    axis
        What is on the horizontal axis.
    text_head
        Above the rows' texts.
    """

    title: str
    rows: Sequence[Row]
    axis: str
    text_head: str = ""


@dataclass(frozen=True, slots=True)
class Extent:
    """What of the horizontal axis is shown.

    Attributes
    ----------
    bounds
        The most that is ever shown: what reaches beyond ends in an arrow. None shows all.
    lines
        Vertical lines with their names, above the rows; zero is always drawn where it is shown.
    from_zero
        Whether zero always lies in view.
    shared
        Whether panels beside each other have the same axis.
    """

    bounds: tuple[float, float] | None = None
    lines: Mapping[float, str] | None = None
    from_zero: bool = True
    shared: bool = False


def forest(
    grid: Sequence[Sequence[Panel]],
    *,
    title: str,
    note: str = "",
    form: Form = "png",
    width: float = 9.0,
    extent: Extent | None = None,
) -> bytes:
    """A grid of panels, rows of it from top to bottom."""
    extent = extent or Extent()
    row_height = 0.27
    heights = [row_height * _places(line[0].rows)[1] + 0.25 for line in grid]

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(grid), len(grid[0]), squeeze=False, height_ratios=heights)
        for axes_row, line in zip(panels, grid, strict=True):
            everything = [p for panel in line for p in _numbers(panel)]
            for column, (axes, panel) in enumerate(zip(axes_row, line, strict=True)):
                limits = _limits(everything if extent.shared else _numbers(panel), extent)
                _paint_panel(axes, panel, limits, extent, named=column == 0)
        head(figure, title, note, legend=_legend(grid))

    legend = 0.3 if _legend(grid)[0] else 0.0
    height = sum(heights) + 0.75 * len(grid) + 0.45 + legend + 0.16 * (note.count("\n") + 1)
    return draw(paint, width=width, height=height, form=form)


def _numbers(panel: Panel) -> list[float]:
    return [v for row in panel.rows for mark in row.marks for v in mark.estimate.known]


def _limits(numbers: Sequence[float], extent: Extent) -> tuple[float, float]:
    shown = [*numbers, *(extent.lines or {}), *([0.0] if extent.from_zero or not numbers else [])]
    low, high = min(shown), max(shown)
    if extent.bounds is not None:
        low, high = max(low, extent.bounds[0]), min(high, extent.bounds[1])
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _places(rows: Sequence[Row]) -> tuple[list[float], float]:
    """Distance of each row from the top, and the height of all, in rows."""
    found, place = [], 0.0
    for row in rows:
        place += 0.35 if row.apart else 0.0
        found.append(place)
        place += max(1.0, 0.55 * len(row.marks) + 0.25)
    return found, place


def _paint_panel(axes: Axes, panel: Panel, limits: tuple[float, float], extent: Extent, *, named: bool) -> None:
    places, height = _places(panel.rows)
    axes.set_xlim(*limits)
    axes.set_ylim(height - 0.5, -0.5)
    quiet(axes, grid="x")
    axes.spines["left"].set_visible(False)
    if limits[0] < 0.0 < limits[1]:
        axes.axvline(0, color=MUTED, linewidth=1.1, zorder=1.5)
    for value, name in (extent.lines or {}).items():
        axes.axvline(value, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5)
        axes.annotate(
            name, (value, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", va="bottom", fontsize=8, color=MUTED,
        )  # fmt: skip
    centres = [
        place + (0.55 * max(len(row.marks), 1) - 0.55) / 2 for place, row in zip(places, panel.rows, strict=True)
    ]
    for centre, place, row in zip(centres, places, panel.rows, strict=True):
        if row.strong:
            half = max(0.48, 0.275 * len(row.marks) + 0.1)
            axes.axhspan(centre - half, centre + half, color=_TINT, linewidth=0, zorder=0)
        for number, mark in enumerate(row.marks):
            _paint_mark(axes, place + 0.55 * number, mark, limits, strong=row.strong)
        if row.text:
            _beside(axes, row.text, centre, strong=row.strong)
    axes.set_yticks(centres, [row.name for row in panel.rows] if named else [""] * len(panel.rows))
    axes.tick_params(axis="y", labelcolor=INK)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.locator_params(axis="x", nbins=5)
    for tick, row in zip(axes.get_yticklabels(), panel.rows, strict=True):
        tick.set_fontweight("bold" if row.strong else "normal")
    axes.set_title(panel.title, fontsize=10, pad=16 if extent.lines or panel.text_head else 6)
    axes.set_xlabel(panel.axis, fontsize=9)
    if panel.text_head:
        axes.annotate(
            panel.text_head, (1, 1), (6, 2), xycoords="axes fraction", textcoords="offset points",
            ha="left", va="bottom", fontsize=8, color=MUTED,
        )  # fmt: skip


def _beside(axes: Axes, text: str, height: float, *, strong: bool) -> None:
    axes.annotate(
        text, (1, height), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        ha="left", va="center", fontsize=8, color=INK, fontweight="bold" if strong else "normal",
    )  # fmt: skip


def _paint_mark(axes: Axes, height: float, mark: Mark, limits: tuple[float, float], *, strong: bool) -> None:
    low, high = limits
    ends, value = mark.estimate.ends, mark.estimate.value
    if ends is not None:
        left, right = np.clip(ends, low, high)
        axes.plot(
            [left, right], [height] * 2, color=mark.colour, linewidth=2.4 if strong else 1.8, alpha=0.75,
            solid_capstyle="butt", zorder=2.5,
        )  # fmt: skip
        for end, edge, arrow in ((ends[0] < low, low, "<"), (ends[1] > high, high, ">")):
            if end:
                axes.plot([edge], [height], marker=arrow, color=mark.colour, markersize=6, clip_on=False, zorder=3)
    if value is not None and mark.stem:
        axes.plot([0.0, value], [height] * 2, color=mark.colour, linewidth=2.4 if strong else 1.6, alpha=0.4, zorder=2)
    if value is not None:
        inside = low <= value <= high
        axes.plot(
            [np.clip(value, low, high)], [height], marker=mark.marker, color=mark.colour, clip_on=False, zorder=3.5,
            markersize=7.5 if strong else 6, markerfacecolor=mark.colour if inside else "white",
            markeredgecolor="white" if inside else mark.colour, markeredgewidth=0.8 if inside else 1.2,
        )  # fmt: skip


def _legend(grid: Sequence[Sequence[Panel]]) -> tuple[list[object], list[str]]:
    """A handle per named series, in order of appearance."""
    from matplotlib.lines import Line2D

    found: dict[str, object] = {}
    for line in grid:
        for panel in line:
            for row in panel.rows:
                for mark in row.marks:
                    if mark.series and mark.series not in found:
                        found[mark.series] = Line2D(
                            [], [], color=mark.colour, marker=mark.marker, linewidth=1.8, markersize=6
                        )
    return list(found.values()), list(found)
