"""One look for every figure: colours that colour-blind readers can tell apart, quiet axes, bytes that do not vary."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Form = Literal["png", "svg"]
"""File format of a figure."""

INK = "#22262B"
MUTED = "#6B737C"
GRID = "#E3E6EA"

# Okabe and Ito's palette: the learned method is always the strong one, fixed choices are cool, references grey.
COLOURS = {
    "simmerge": "#D55E00",
    "linear": "#56B4E9",
    "slerp": "#009E73",
    "ties": "#E6A700",
    "best_fixed": "#0072B2",
    "best_fixed_per_task": "#7FB2D9",
    "expert_last_best_fixed": "#0072B2",
    "random": "#B4BAC1",
    "random_order": "#7FB2D9",
    "random_plan": "#B4BAC1",
    "keep_better_parent": "#CC79A7",
    "oracle": INK,
}
OTHERS = ("#CC79A7", "#F0E442", "#7A5C99", "#8C6D31", "#5F9EA0", "#999999")

LABELS = {
    "simmerge": "SimMerge",
    "linear": "Linear",
    "slerp": "SLERP",
    "ties": "TIES",
    "best_fixed": "Best fixed",
    "best_fixed_per_task": "Best fixed per task",
    "expert_last_best_fixed": "Expert last, best fixed",
    "random": "Random",
    "random_order": "Random order",
    "random_plan": "Random plan",
    "keep_better_parent": "Better parent",
    "oracle": "Oracle (other items)",
    "task_arithmetic": "Task arithmetic",
    "norm_balanced": "Norm-balanced",
    "ties_task_vector": "TIES, task vectors",
    "rag": "RAG",
}

_RULES = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "path.simplify": False,
    "svg.hashsalt": "simmerge",
}


def label(name: str) -> str:
    """A method's, action's or task's name in a figure."""
    if name in LABELS:
        return LABELS[name]
    operator, _, rest = name.partition("@")
    words = LABELS.get(operator, operator.replace("_", " "))
    words = words[:1].upper() + words[1:]
    return f"{words} {rest}" if rest else words


def colour(name: str, position: int = 0) -> str:
    """A method's colour; `position` picks among the spare ones."""
    return COLOURS.get(name, OTHERS[position % len(OTHERS)])


def draw(paint: Callable[[Figure], None], *, width: float, height: float, dpi: int = 150, form: Form = "png") -> bytes:
    """Run `paint` on a fresh figure of the given size (inches) and return it as the bytes of a PNG or SVG file.

    The same input gives the same bytes: no date, no user settings, the font that matplotlib ships.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RULES)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        buffer = io.BytesIO()
        unchanging = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
        figure.savefig(buffer, format=form, dpi=dpi, metadata=unchanging)
    return buffer.getvalue()


def quiet(axes: Axes, *, grid: Literal["x", "y"] = "y") -> None:
    """Light grid lines along one axis, no tick marks."""
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.tick_params(length=0)
