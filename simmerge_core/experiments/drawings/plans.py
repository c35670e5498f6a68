"""Figure of `plans`: what the learned order is worth (Fig. 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simmerge_core.analysis.figures.style import MUTED, Form, colour, draw, label
from simmerge_core.experiments.drawings.estimates import as_text, estimate, with_means
from simmerge_core.experiments.drawings.grouped import Bars, paint_groups
from simmerge_core.experiments.drawings.heading import head
from simmerge_core.experiments.drawings.notes import along, configurations, note
from simmerge_core.experiments.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plans(result: Result, form: Form) -> Mapping[str, bytes]:
    """Learned against random order of the same operators, per task; a panel per k."""
    sections = {k: result.figures["paper"][k] for k in sorted(result.figures["paper"])}

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(sections), sharey=True, squeeze=False)[0]
        for axes, (k, section) in zip(panels, sections.items(), strict=True):
            _paint_orders(axes, section)
            gain = estimate(section["points_over"].get("random_order"))
            axes.set_title(f"{k}-way: {gain.text(1, signed=True)} points", fontsize=10)
        panels[0].set_ylabel("GapClosed (%)")
        head(
            figure,
            "Merge order: the same operators in random and in learned order",
            note(configurations(sections), along(result.rows), "points: learned minus random order", width=10.0),
            legend=panels[0].get_legend_handles_labels(),
        )

    return {"fig_05_order": draw(paint, width=10.0, height=4.4, form=form)}


def _paint_orders(axes: Axes, section: Mapping[str, Any]) -> None:
    tasks = sorted(section["per_task"])

    names = ("random_order", "simmerge")
    found = with_means(
        {m: [section["per_task"][t]["methods"].get(m, {}).get("gap_closed") for t in tasks] for m in names}
    )
    at_random, learned = (found[m] for m in names)
    gains = [
        "" if a is None or b is None else as_text(b - a, 0, signed=True)
        for a, b in zip(at_random, learned, strict=True)
    ]
    paint_groups(
        axes,
        [*map(label, tasks), "Mean"],
        [
            Bars("Random order", at_random, colour("random_order")),
            Bars("SimMerge's order", learned, colour("simmerge"), gains),
        ],
        set_apart=True,
    )
    axes.axhline(100, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0 if low > -1 else low - 6), max(high, 108))
    axes.tick_params(axis="x", labelsize=9)
