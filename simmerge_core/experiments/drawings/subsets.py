"""Figure of `subsets`: what to merge out of the whole catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simmerge_core.analysis.figures.style import Form, colour
from simmerge_core.experiments.drawings.estimates import estimate
from simmerge_core.experiments.drawings.forest import Extent, Mark, Panel, Row, forest
from simmerge_core.experiments.drawings.names import OTHER
from simmerge_core.experiments.drawings.notes import along, note
from simmerge_core.experiments.result import Result
from simmerge_core.experiments.subsets import RIVALS, SELECTED


def subsets(result: Result, form: Form) -> Mapping[str, bytes]:
    """Mean score on the target's tasks per method; a panel per number of tasks."""
    sections = {k: result.figures[k] for k in sorted(result.figures)}
    panels = [_panel(f"{k} tasks ({section['requests']} requests)", section) for k, section in sections.items()]
    picture = forest(
        [panels],
        title="Choosing from the whole catalog what to merge",
        note=note(along(result.rows), "lines are 95\u00a0% intervals over tasks", "right: paired", width=11.0),
        form=form,
        width=11.0,
        extent=Extent(from_zero=False),
    )
    return {"subsets": picture}


def _panel(title: str, section: Mapping[str, Any]) -> Panel:
    rows = []
    for name in (SELECTED, *RIVALS):
        own = name == SELECTED
        figure = estimate(section["utility"].get(name))
        gain = "" if own else estimate(section["gain_of_selector"].get(name)).text(3, signed=True)
        mark = Mark(figure, colour("simmerge") if own else OTHER)
        rows.append(Row(name[:1].upper() + name[1:], [mark], gain, strong=own))
    return Panel(title, rows, "mean score on the tasks asked for", "selector above")
