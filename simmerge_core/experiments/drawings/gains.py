"""Panels of a comparison's methods: gain in utility over the best fixed action, and the share of the oracle's gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simmerge_core.experiments.drawings.estimates import estimate
from simmerge_core.experiments.drawings.forest import Mark, Panel, Row
from simmerge_core.experiments.drawings.names import mark_colour, method

AXIS = "utility above the best fixed action"
SHARE = "of oracle's gain"


def ranked(sections: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every method of the sections, by gain in the first section that knows it, best first."""
    gains: dict[str, tuple[int, float]] = {}
    for number, section in enumerate(sections):
        for name, figure in section["gain_over_best_fixed"].items():
            value = figure["value"]
            gains.setdefault(name, (number, float("inf") if value is None else -value))
    return sorted(gains, key=lambda name: (*gains[name], name))


def gain_panel(title: str, section: Mapping[str, Any], order: Sequence[str]) -> Panel:
    """A row per method in the given order, those that the section does not know left empty."""
    rows = []
    for name in order:
        figure = section["gain_over_best_fixed"].get(name)
        share = estimate(section["captured"].get(name))
        rows.append(
            Row(
                method(name),
                () if figure is None else (Mark(estimate(figure), mark_colour(name)),),
                share.text(2) if name in section["captured"] else "",
                strong=name == "simmerge",
            )
        )
    return Panel(title, rows, AXIS, SHARE)
