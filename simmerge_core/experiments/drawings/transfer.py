"""Figures of `transfer`: a selector of small models on larger ones (Fig. 6, 13, 14), and on their pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from simmerge_core.analysis.figures.bars import gap_closed_bars
from simmerge_core.analysis.figures.deltas import delta_markers
from simmerge_core.analysis.figures.from_report import per_task_frame
from simmerge_core.analysis.figures.style import Form, colour
from simmerge_core.experiments.drawings.estimates import Estimate, as_text, with_means
from simmerge_core.experiments.drawings.forest import Mark, Panel, Row, forest
from simmerge_core.experiments.drawings.gains import gain_panel, ranked
from simmerge_core.experiments.drawings.names import SETS, TARGETS, mark_colour, method
from simmerge_core.experiments.drawings.notes import INTERVALS, along, configurations, left_out, note
from simmerge_core.experiments.result import Result

_OPERATORS = ("linear", "slerp", "ties")
_SHOWN = {
    "simmerge": "simmerge",
    "expert_last_best_fixed": "expert_last_best_fixed",
    **{f"random_order_{o}": o for o in _OPERATORS},
    "oracle": "oracle",
}
"""Plans by their names in the figures: a fixed operator stands for the mean over all orders, as in the paper."""

_DELTAS = {"delta_expert": "Δexpert (%)", "delta_aux": "Δaux (%)"}
_FIXED = "fixed operators: mean over orders"


def transfer(result: Result, form: Form) -> Mapping[str, bytes]:
    """Three-way plans as in the paper, and every method on pairs."""
    ratio = f"{result.figures['parameter_ratio']:.1f} × the parameters"
    found = {"transfer": _pairs(result, ratio, form)}
    plans = result.figures["plans"].get("3")
    if plans is None:
        return found
    table = _renamed(plans)
    about = (ratio, configurations({"3": plans}), along(result.rows), _FIXED)
    shown = [name for name in _SHOWN.values() if name != "oracle"]
    return {
        **found,
        "fig_06_larger": _larger(plans, note(*about, width=10.0), form),
        "fig_13_deltas": delta_markers(
            table,
            methods=shown,
            title="Three-way merges of larger models: change against expert and auxiliaries",
            note=note(*about, width=9.6),
            form=form,
        ),
        "fig_14_gap_closed": gap_closed_bars(
            table,
            methods=[*_OPERATORS, "expert_last_best_fixed", "simmerge"],
            title="Share of the gap closed by three-way merges of larger models",
            note=note(*about, left_out(plans)),
            form=form,
            halo=True,
        ),
    }


def _renamed(plans: Mapping[str, Any]) -> pl.DataFrame:
    table = per_task_frame(plans)
    return table.filter(pl.col("method").is_in(list(_SHOWN))).with_columns(pl.col("method").replace(_SHOWN))


def _larger(plans: Mapping[str, Any], about: str, form: Form) -> bytes:
    """Fig. 6: macro-averaged changes per method."""
    titles = {"delta_expert": "Against the expert", "delta_aux": "Against the auxiliaries"}
    tables = [table["methods"] for _, table in sorted(plans["per_task"].items())]
    panels = []
    for column, axis in _DELTAS.items():
        changes = with_means({m: [t.get(m, {}).get(column) for t in tables] for m in _SHOWN})
        rows = [
            Row(
                method(shown),
                [
                    Mark(
                        Estimate(changes[m][-1]),
                        colour(shown) if shown in _OPERATORS else mark_colour(shown),
                        stem=True,
                    )
                ],
                as_text(changes[m][-1], 1, signed=True),
                strong=m == "simmerge",
            )
            for m, shown in _SHOWN.items()
        ]
        panels.append(Panel(titles[column], rows, axis))
    title = "Three-way merges of larger models, mean over tasks"
    return forest([panels], title=title, note=about, form=form, width=10.0)


def _pairs(result: Result, ratio: str, form: Form) -> bytes:
    sections = {name: result.figures[name] for name in ("paper", "extended") if name in result.figures}
    order = ranked(list(sections.values()))
    panels = [
        gain_panel(f"{SETS[name]}, {TARGETS[part['target']]} ({part['pairs']} pairs)", part, order)
        for name, part in sections.items()
    ]
    own = "best fixed action: the larger models' own"
    return forest(
        [panels],
        title="Pairs of larger models, without retraining",
        note=note(ratio, along(result.rows), own, INTERVALS, width=10.0),
        form=form,
        width=10.0,
    )
