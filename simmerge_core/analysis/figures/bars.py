"""GapClosed per task and method (Fig. 2 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from simmerge_core.analysis.figures.style import INK, MUTED, Form, colour, draw, label, quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEAN = "Mean"


def gap_closed_bars(
    frame: pl.DataFrame,
    *,
    methods: Sequence[str],
    oracle: str | None = "oracle",
    title: str = "Share of the expert–auxiliary gap closed",
    note: str = "",
    form: Form = "png",
    halo: bool = False,
) -> bytes:
    """Grouped bars, one group per task and one for the mean over tasks.

    Parameters
    ----------
    frame
        Columns ``task``, ``method``, ``gap_closed`` (percent, null where undefined).
    methods
        Methods drawn as bars, from left to right; ``simmerge`` is labelled with its value.
    oracle
        Method drawn as a tick across each group, or None.
    title, note
        Heading, and a line below it.
    form
        File format.
    halo
        Whether values have a white edge, so that no oracle strikes them through.

    Returns
    -------
    bytes
        The file.
    """
    tasks = sorted(frame["task"].unique().to_list())
    values = {(row["task"], row["method"]): row["gap_closed"] for row in frame.iter_rows(named=True)}

    def series(method: str) -> np.ndarray:
        found = np.array([_number(values.get((task, method))) for task in tasks])
        mean = found[np.isfinite(found)].mean() if np.isfinite(found).any() else np.nan
        return np.append(found, mean)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(tasks) + 1.0)
        places[-1] += 0.25
        width = 0.8 / len(methods)
        for number, method in enumerate(methods):
            left = places - 0.4 + (number + 0.5) * width
            heights = series(method)
            axes.bar(left, np.nan_to_num(heights), width * 0.92, color=colour(method, number), label=label(method))
            if method == "simmerge":
                for x, y in zip(left, heights, strict=True):
                    if np.isfinite(y):
                        axes.annotate(
                            f"{y:.0f}",
                            (x, y),
                            (0, 5 if y >= 0 else -5),
                            textcoords="offset points",
                            ha="center",
                            va="bottom" if y >= 0 else "top",
                            fontsize=9,
                            fontweight="bold",
                            color=colour(method),
                            path_effects=_white_edge() if halo else None,
                        )
        if oracle is not None:
            axes.hlines(series(oracle), places - 0.42, places + 0.42, color=INK, linewidth=1.6, label=label(oracle))
        axes.axhline(0, color=MUTED, linewidth=0.9)
        axes.axhline(100, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.axvline((places[-2] + places[-1]) / 2, color=MUTED, linewidth=0.6, ymin=0.02, ymax=0.98)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -4), max(high, 108))
        axes.set_xlim(places[0] - 0.55, places[-1] + 0.55)
        for height, name in ((0, "auxiliary"), (100, "expert")):
            axes.annotate(
                name,
                (1, height),
                (5, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=MUTED,
            )
        axes.set_xticks(places, [*map(label, tasks), MEAN])
        axes.get_xticklabels()[-1].set_fontweight("bold")
        axes.set_ylabel("GapClosed (%)")
        quiet(axes)
        axes.set_title(title)
        if note:
            figure.supxlabel(note, fontsize=8.5, color=MUTED)
        handles, names = axes.get_legend_handles_labels()
        if oracle is not None:
            # The rule across each group is listed before the bars; it reads better after them.
            handles, names = [*handles[1:], handles[0]], [*names[1:], names[0]]
        figure.legend(
            handles,
            names,
            loc="outside upper right",
            ncols=min(len(methods) + 1, 6),
            columnspacing=1.2,
            handlelength=1.2,
        )

    return draw(paint, width=9.0, height=4.4, form=form)


def _white_edge() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3.0, foreground="white")]


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
