"""Grouped bars: a group per task or action set, a bar per method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simmerge_core.analysis.figures.style import MUTED, quiet
from simmerge_core.experiments.drawings.estimates import finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Bars:
    """The bars of one method.

    Attributes
    ----------
    heights
        One per group; None leaves its place empty.
    labels
        Texts at the ends of the bars, one per group, or none.
    """

    name: str
    heights: Sequence[float | None]
    colour: str
    labels: Sequence[str] = ()


def paint_groups(axes: Axes, groups: Sequence[str], bars: Sequence[Bars], *, set_apart: bool = False) -> None:
    """Bars from zero, beside each other within each group.

    Parameters
    ----------
    set_apart
        Whether the last group is a summary of the others: it is moved away, its name is bold.
    """
    places = np.arange(float(len(groups)))
    if set_apart and len(groups) > 1:
        places[-1] += 0.25
        axes.axvline((places[-2] + places[-1]) / 2, color=MUTED, linewidth=0.6, ymin=0.02, ymax=0.98)
    width = 0.8 / len(bars)
    for number, series in enumerate(bars):
        left = places - 0.4 + (number + 0.5) * width
        heights = np.array([finite(h) for h in series.heights])
        axes.bar(left, np.nan_to_num(heights), width * 0.92, color=series.colour, label=series.name)
        for x, y, text in zip(left, heights, series.labels, strict=False):
            if np.isfinite(y) and text:
                _at_end(axes, x, y, text, series.colour)
    axes.axhline(0, color=MUTED, linewidth=0.9)
    axes.set_xlim(places[0] - 0.55, places[-1] + 0.55)
    axes.set_xticks(places, groups)
    if set_apart:
        axes.get_xticklabels()[-1].set_fontweight("bold")
    quiet(axes)


def _at_end(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.annotate(
        text,
        (x, y),
        (0, 4 if y >= 0 else -4),
        textcoords="offset points",
        ha="center",
        va="bottom" if y >= 0 else "top",
        fontsize=8.5,
        fontweight="bold",
        color=colour,
    )
