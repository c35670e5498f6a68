"""Confusion matrix of the chosen against the best action (Fig. 9 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from simmerge_core.analysis.figures.style import INK, MUTED, Form, draw, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Matrix = Sequence[Sequence[float]] | np.ndarray
"""(m, m): rows are the best action on the scored items, columns the chosen one; ties may give fractions."""


def confusion_matrix(
    matrix: Matrix,
    actions: Sequence[str],
    *,
    title: str = "Chosen against best operator",
    note: str = "",
    form: Form = "png",
) -> bytes:
    """Row-normalised heat map; each cell shows the share of its row and the number of cases.

    Parameters
    ----------
    matrix
        (m, m): rows are the best action on the scored items, columns the chosen one; ties may give fractions.
    actions
        The m names.
    form
        File format.

    Returns
    -------
    bytes
        The file.
    """

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        paint_matrix(axes, matrix, actions)
        axes.set_title(title)
        if note:
            figure.supxlabel(note, fontsize=8.5, color=MUTED)

    side = matrix_side(len(actions))
    return draw(paint, width=side + 1.1, height=side, form=form)


def matrix_side(m: int) -> float:
    """Inches that a matrix of m actions takes with its title and names."""
    return 2.4 + 0.66 * m


def paint_matrix(axes: Axes, matrix: Matrix, actions: Sequence[str]) -> None:
    """The heat map of `confusion_matrix` on axes of one's own."""
    counts = np.asarray(matrix, dtype=np.float64)
    mass = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, mass, out=np.zeros_like(counts), where=mass > 0)
    names = [label(action) for action in actions]
    m = len(names)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.15, aspect="equal")
    for row in range(m):
        for column in range(m):
            ink = "white" if shares[row, column] > 0.6 else INK
            if counts[row, column] == 0:
                continue
            axes.annotate(
                f"{100 * shares[row, column]:.0f} %",
                (column, row),
                (0, 4),
                textcoords="offset points",
                ha="center",
                va="center",
                color=ink,
                fontsize=11 if m <= 4 else 9,
                fontweight="bold" if row == column else "normal",
            )
            axes.annotate(
                _count(counts[row, column]),
                (column, row),
                (0, -10),
                textcoords="offset points",
                ha="center",
                va="center",
                color=ink,
                fontsize=8 if m <= 4 else 7,
                alpha=0.8,
            )
    axes.set_xticks(range(m), names, rotation=0 if m <= 4 else 35, ha="center" if m <= 4 else "right")
    axes.set_yticks(range(m), [f"{name}\n({_count(total)})" for name, total in zip(names, mass[:, 0], strict=True)])
    axes.tick_params(length=0, labelcolor=INK)
    axes.set_xticks(np.arange(m - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(m - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("Chosen")
    axes.set_ylabel("Best on the scored items (cases)")


def _count(value: float) -> str:
    return f"{value:.0f}" if abs(value - round(value)) < 1e-9 else f"{value:.1f}"
