"""Change against the expert and against the auxiliary (Fig. 3 and Fig. 4 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from simmerge_core.analysis.figures.style import INK, MUTED, Form, colour, draw, label, quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AUX, _EXPERT = "#0072B2", "#D55E00"


def delta_markers(
    frame: pl.DataFrame,
    *,
    methods: Sequence[str],
    title: str = "Change against expert and auxiliary",
    note: str = "",
    form: Form = "png",
) -> bytes:
    """Per task and method, Δexpert (above) and Δaux (below) in percent, each from zero (Fig. 3).

    Parameters
    ----------
    frame
        Columns ``task``, ``method``, ``delta_expert``, ``delta_aux`` (percent, null where undefined).
    methods
        Methods from top to bottom.
    form
        File format.

    Returns
    -------
    bytes
        The file.
    """
    tasks = sorted(frame["task"].unique().to_list())
    values = {(row["task"], row["method"]): row for row in frame.iter_rows(named=True)}

    def paint(figure: Figure) -> None:
        # One row of panels per reference: a weak auxiliary makes Δaux so large that Δexpert would vanish beside it.
        panels = figure.subplots(2, len(tasks), sharey=True, squeeze=False)
        heights = np.arange(len(methods))[::-1]
        for row, (column, tint) in enumerate((("delta_expert", _EXPERT), ("delta_aux", _AUX))):
            for axes, task in zip(panels[row], tasks, strict=True):
                axes.axvline(0, color=MUTED, linewidth=0.9)
                for height, method in zip(heights, methods, strict=True):
                    value = values.get((task, method), {}).get(column)
                    if value is not None:
                        ours = method == "simmerge"
                        axes.plot([0, value], [height] * 2, color=tint, linewidth=3.0 if ours else 1.6, alpha=0.45)
                        axes.scatter([value], [height], color=tint, marker="o" if row else "s", s=46 if ours else 28)
                axes.margins(x=0.12)
                axes.set_ylim(-0.6, len(methods) - 0.4)
                axes.tick_params(axis="x", labelsize=8)
                axes.locator_params(axis="x", nbins=4)
                axes.spines["left"].set_visible(False)
                quiet(axes, grid="x")
                if row == 0:
                    axes.set_title(label(task), fontsize=10, loc="center", pad=6)
            first = panels[row][0]
            first.set_yticks(heights, [label(method) for method in methods])
            first.tick_params(axis="y", labelcolor=INK)
            first.set_ylabel(("Δexpert (%)", "Δaux (%)")[row], color=tint, fontweight="bold")
            for text, method in zip(first.get_yticklabels(), methods, strict=True):
                text.set_fontweight("bold" if method == "simmerge" else "normal")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
        if note:
            figure.supxlabel(note, fontsize=8.5, color=MUTED)

    return draw(paint, width=9.6, height=1.6 + 0.46 * len(methods), form=form)


def merge_size_lines(
    series: Mapping[str, Mapping[int, tuple[float, float]]],
    *,
    title: str = "Two-, three- and four-way merges",
    note: str = "",
    form: Form = "png",
) -> bytes:
    """Macro-averaged Δexpert (left) and Δaux (right) against the number of merged checkpoints (Fig. 4).

    Parameters
    ----------
    series
        Per method and k: (Δexpert, Δaux) in percent.
    form
        File format.

    Returns
    -------
    bytes
        The file.
    """
    sizes = sorted({k for points in series.values() for k in points})

    def paint(figure: Figure) -> None:
        for side, (axes, name) in enumerate(
            zip(
                figure.subplots(1, 2),
                ("Change against the expert (%)", "Change against the auxiliaries (%)"),
                strict=True,
            )
        ):
            for number, (method, points) in enumerate(series.items()):
                ours = method == "simmerge"
                ks = sorted(points)
                axes.plot(
                    ks,
                    [points[k][side] for k in ks],
                    color=colour(method, number),
                    marker="o",
                    markersize=6 if ours else 4.5,
                    linewidth=2.6 if ours else 1.6,
                    linestyle="--" if method == "oracle" else "-",
                    label=label(method) if side == 0 else None,
                    zorder=3 if ours else 2,
                )
            axes.axhline(0, color=MUTED, linewidth=0.9)
            axes.set_xticks(sizes, [f"{k}-way" for k in sizes])
            axes.margins(x=0.12, y=0.12)
            axes.set_title(name, fontsize=10)
            quiet(axes)
        figure.legend(loc="outside upper right", ncols=min(len(series), 5), columnspacing=1.4)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
        if note:
            figure.supxlabel(note, fontsize=8.5, color=MUTED)

    return draw(paint, width=9.0, height=4.0, form=form)
