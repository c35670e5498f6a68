"""Lines of points with intervals over sizes, budgets or bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simmerge_core.experiments.drawings.estimates import Estimate, finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Line:
    """One series.

    Attributes
    ----------
    points
        Place on the horizontal axis and the value there; undefined ones leave a gap.
    strong
        Whether the figure is about it.
    """

    name: str
    points: Sequence[tuple[float, Estimate]]
    colour: str
    strong: bool = False
    dashed: bool = False


def paint_lines(axes: Axes, lines: Sequence[Line], *, apart: float = 0.0) -> None:
    """Draw every line with its intervals; `apart` moves each a little to the side, so that intervals stay visible."""
    middle = (len(lines) - 1) / 2
    for number, line in enumerate(lines):
        points = [(x + apart * (number - middle), e) for x, e in line.points if e.value is not None]
        order = 3.0 if line.strong else 2.0
        for x, e in points:
            if e.ends is not None:
                axes.plot([x, x], e.ends, color=line.colour, linewidth=1.6, alpha=0.55, zorder=order)
        axes.plot(
            [x for x, _ in points],
            [finite(e.value) for _, e in points],
            color=line.colour,
            marker="o",
            markersize=6 if line.strong else 4.5,
            linewidth=2.6 if line.strong else 1.6,
            linestyle="--" if line.dashed else "-",
            label=line.name,
            zorder=order + 0.5,
        )


def span(values: Sequence[float], *, margin: float = 0.08, including: Sequence[float] = ()) -> tuple[float, float]:
    """Limits that show all values with some room."""
    shown = np.array([*values, *including], dtype=np.float64)
    if not len(shown):
        return 0.0, 1.0
    low, high = float(shown.min()), float(shown.max())
    room = margin * (high - low) or 0.5
    return low - room, high + room
