"""Figures of `pairs`: Fig. 2, 3, 9, 12 of the paper, and every rival with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simmerge_core.analysis.figures.bars import gap_closed_bars
from simmerge_core.analysis.figures.confusion import matrix_side, paint_matrix
from simmerge_core.analysis.figures.deltas import delta_markers
from simmerge_core.analysis.figures.from_report import per_task_frame
from simmerge_core.analysis.figures.style import Form, colour, draw, label
from simmerge_core.experiments.drawings.estimates import as_text, with_means
from simmerge_core.experiments.drawings.forest import forest
from simmerge_core.experiments.drawings.gains import gain_panel, ranked
from simmerge_core.experiments.drawings.grouped import Bars, paint_groups
from simmerge_core.experiments.drawings.heading import head
from simmerge_core.experiments.drawings.names import SETS, TARGETS, method
from simmerge_core.experiments.drawings.notes import INTERVALS, along, left_out, note
from simmerge_core.experiments.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPERATORS = ("linear", "slerp", "ties")
_AUXILIARY, _EXPERT = "#C9CED4", "#4A525B"


def pairs(result: Result, form: Form) -> Mapping[str, bytes]:
    """Which operator for a pair: the paper's figures of its actions, and all rivals under both action sets."""
    section = result.figures["paper"]
    table = per_task_frame(section)
    about = f"{section['pairs']} held-out pairs, {along(result.rows)}"
    return {
        "fig_02_gap_closed": gap_closed_bars(
            table,
            methods=[*OPERATORS, "best_fixed", "simmerge"],
            note=note(about, left_out(section)),
            form=form,
            halo=True,
        ),
        "fig_03_deltas": delta_markers(
            table, methods=["simmerge", "best_fixed", *OPERATORS], note=note(about, width=9.6), form=form
        ),
        "fig_09_confusion": _confusions(section, note(about, "ties shared"), form),
        "fig_12_scores": _scores(section, note(about), form),
        "rivals": _rivals(result, form),
    }


def _confusions(section: Mapping[str, Any], about: str, form: Form) -> bytes:
    parts = (("Without task code", section["without_task_code"]), ("With task code", section))
    side = matrix_side(len(section["confusion"]["actions"]))

    def paint(figure: Figure) -> None:
        for axes, (title, part) in zip(figure.subplots(1, 2), parts, strict=True):
            paint_matrix(axes, part["confusion"]["matrix"], part["confusion"]["actions"])
            axes.set_title(f"{title}: {100 * part['accuracy']:.1f} % right", fontsize=10)
        head(figure, "Chosen against best operator", about)

    return draw(paint, width=2 * (side + 0.5), height=side + 0.35, form=form)


def _scores(section: Mapping[str, Any], about: str, form: Form) -> bytes:
    tasks = sorted(section["per_task"])
    table = section["per_task"]
    named = ("parent_auxiliary", *OPERATORS, "simmerge", "parent_expert")
    tints = {"parent_auxiliary": _AUXILIARY, "parent_expert": _EXPERT}
    found = with_means({name: [_percent(table[t]["methods"], name) for t in tasks] for name in named})
    bars = [
        Bars(
            method(name),
            heights,
            tints.get(name) or colour(name),
            [as_text(h, 0) for h in heights] if name == "simmerge" else [],
        )
        for name, heights in found.items()
    ]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        paint_groups(axes, [*map(label, tasks), "Mean"], bars, set_apart=True)
        axes.set_ylabel("Mean score on the expert's task (%)")
        head(figure, "Scores of auxiliaries, merges and experts", about, legend=axes.get_legend_handles_labels())

    return draw(paint, width=10.0, height=4.4, form=form)


def _percent(methods: Mapping[str, Any], name: str) -> float | None:
    value = methods.get(name, {}).get("mean")
    return None if value is None else 100.0 * float(value)


def _rivals(result: Result, form: Form) -> bytes:
    sections = {name: result.figures[name] for name in ("paper", "extended") if name in result.figures}
    order = ranked(list(sections.values()))
    panels = [
        gain_panel(f"{SETS[name]}, {TARGETS[part['target']]} ({part['pairs']} pairs)", part, order)
        for name, part in sections.items()
    ]
    return forest(
        [panels],
        title="Methods that choose an action, on held-out pairs",
        note=note(along(result.rows), INTERVALS, width=10.0),
        form=form,
        width=10.0,
    )
