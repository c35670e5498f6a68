"""What a bandit's rounds brought and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from simmerge_core.analysis.figures.style import MUTED, Form, colour, draw, quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bandit_rounds(
    rewards: Sequence[float], estimated_regret: Sequence[float], *, name: str, form: Form = "png"
) -> bytes:
    """Rewards with their running mean, and the cumulative regret as the posterior now estimates it.

    Parameters
    ----------
    rewards, estimated_regret
        One per round, in order, in units of the metric.
    name
        Of the bandit.
    """
    rounds = np.arange(1, len(rewards) + 1)
    values, lost = np.asarray(rewards, dtype=np.float64), np.cumsum(np.asarray(estimated_regret, dtype=np.float64))

    def paint(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        left, right = figure.subplots(1, 2)
        left.plot(rounds, values, "o", markersize=3.5, color=colour("best_fixed"), alpha=0.6, label="reward")
        running = np.cumsum(values) / rounds
        left.plot(rounds, running, color=colour("simmerge"), linewidth=2.2, label="mean so far")
        left.set_title("Reward")
        left.legend(loc="lower right")
        right.plot(rounds, lost, color=colour("simmerge"), linewidth=2.2)
        right.set_ylim(bottom=min(0.0, float(lost.min())))
        right.set_title("Cumulative regret, estimated")
        right.annotate(
            "by the present posterior: what other\narms would have brought is not known",
            (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=8.5, color=MUTED,
        )  # fmt: skip
        for axes in (left, right):
            axes.set_xlabel(f"round of {name}")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no round 1.5
            quiet(axes)

    return draw(paint, width=9.0, height=3.4, form=form)
