"""Title above a figure, with the legend below it where there is one, and the note at the bottom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simmerge_core.analysis.figures.style import MUTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def head(
    figure: Figure, title: str, note: str = "", *, legend: tuple[Sequence[Any], Sequence[str]] | None = None
) -> None:
    """Put the words around the axes.

    Parameters
    ----------
    legend
        Handles and their labels.
    """
    if legend is not None and legend[0]:
        # As the legend's own title: a figure title and a legend that are both placed above the axes overlap.
        handles, labels = legend
        figure.legend(
            handles,
            labels,
            title=title,
            title_fontproperties={"weight": "bold", "size": 12},
            alignment="left",
            loc="outside upper left",
            ncols=min(len(labels), 6),
            columnspacing=1.4,
            handlelength=1.4,
            borderpad=0.2,
        )
    else:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    if note:
        figure.supxlabel(note, fontsize=8.5, color=MUTED)
