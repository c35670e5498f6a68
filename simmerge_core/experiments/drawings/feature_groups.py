"""Figure of `feature_groups`: which signals the choice rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simmerge_core.analysis.figures.style import Form, colour
from simmerge_core.experiments.drawings.estimates import as_text, estimate
from simmerge_core.experiments.drawings.forest import Extent, Mark, Panel, Row, forest
from simmerge_core.experiments.drawings.names import GROUPS, OTHER, SETS
from simmerge_core.experiments.drawings.notes import INTERVALS, along, beyond, note
from simmerge_core.experiments.feature_groups import ALONE, WITHOUT_CODE
from simmerge_core.experiments.result import Result
from simmerge_core.features.columns import FEATURE_GROUPS

_DEFAULT = "simmerge"
_BOUNDS = (-1.0, 1.5)
"""Where the oracle gains little over the best fixed action, shares of it have no bounds."""


def feature_groups(result: Result, form: Form) -> Mapping[str, bytes]:
    """Share of the oracle's gain per variant: pair split under both action sets, and held-out experts."""
    panels = {
        "paper": f"{SETS['paper']}, pairs",
        "held_out_experts": f"{SETS['paper']}, held-out experts",
        "extended": f"{SETS['extended']}, pairs",
    }
    sections = {name: result.figures[name] for name in panels if name in result.figures}
    order = _order(list(sections.values()))
    counts = ", ".join(f"{s['pairs']} ({SETS[n].lower()})" for n, s in sections.items() if "pairs" in s)
    shares = [estimate(f) for s in sections.values() for f in s["captured"].values()]
    picture = forest(
        [[_panel(panels[name], section, order) for name, section in sections.items()]],
        title="Which signals the choice rests on",
        note=note(f"held-out pairs: {counts}", along(result.rows), INTERVALS, beyond(shares, _BOUNDS), width=11.0),
        form=form,
        width=11.0,
        extent=Extent(bounds=_BOUNDS, lines={1.0: "oracle"}),
    )
    return {"feature_groups": picture}


def _order(sections: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, bool]]:
    """Each variant that there is, what it is called, and whether it starts a block."""
    known = {name for section in sections for name in section["captured"]}
    alone = [(name, name[:1].upper() + name[1:]) for name in ALONE]
    without = [(f"without {g}", f"Without {GROUPS.get(g, g)}") for g in FEATURE_GROUPS]
    without.append((WITHOUT_CODE, "Without task code"))
    blocks = [[(_DEFAULT, "All, with task code")], alone, without]
    found = []
    for block in blocks:
        here = [(name, shown) for name, shown in block if name in known]
        found += [(name, shown, number == 0) for number, (name, shown) in enumerate(here)]
    return found


def _panel(title: str, section: Mapping[str, Any], order: Sequence[tuple[str, str, bool]]) -> Panel:
    rows = []
    for number, (name, shown, first) in enumerate(order):
        figure = section["captured"].get(name)
        own = name == _DEFAULT
        marks = [] if figure is None else [Mark(estimate(figure), colour("simmerge") if own else OTHER)]
        value = "" if figure is None else as_text(figure["value"], 2)
        rows.append(Row(shown, marks, value, strong=own, apart=first and number > 0))
    return Panel(title, rows, "share of the oracle's gain")
