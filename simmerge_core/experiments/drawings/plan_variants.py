"""Figure of `plan_variants`: other ways to score plans against the default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simmerge_core.analysis.figures.style import Form, colour
from simmerge_core.experiments.drawings.estimates import Estimate, estimate
from simmerge_core.experiments.drawings.forest import Mark, Panel, Row, forest
from simmerge_core.experiments.drawings.names import OTHER
from simmerge_core.experiments.drawings.notes import INTERVALS, along, configurations, note
from simmerge_core.experiments.plan_variants import DEFAULT, SCORINGS
from simmerge_core.experiments.result import Result


def plan_variants(result: Result, form: Form) -> Mapping[str, bytes]:
    """Gain over the default per variant; a panel per k."""
    sections = {k: result.figures[k] for k in sorted(result.figures)}
    picture = forest(
        [[_panel(f"{k}-way", section) for k, section in sections.items()]],
        title="Ways to score plans",
        note=note(configurations(sections), along(result.rows), INTERVALS, width=10.0),
        form=form,
        width=10.0,
    )
    return {"plan_scoring": picture}


def _panel(title: str, section: Mapping[str, Any]) -> Panel:
    names = [s.name for s in SCORINGS if s.name != DEFAULT]
    rows = [
        Row(
            name[:1].upper() + name[1:],
            [Mark(estimate(section["gain_over_default"].get(name)), OTHER)],
            estimate(section["gap_closed"].get(name)).text(1),
        )
        for name in names
    ]
    default = estimate(section["gap_closed"].get(DEFAULT))
    rows.insert(0, Row("Default", [Mark(Estimate(0.0), colour("simmerge"))], default.text(1), strong=True))
    return Panel(title, rows, "utility above the default", "GapClosed, %")
