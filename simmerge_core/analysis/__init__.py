"""Evaluation of choices: the clean protocol, the report with its baselines, and `figures`, which draws it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.analysis.protocol import Direction, directions
    from simmerge_core.analysis.rendering import Rendered, render
    from simmerge_core.analysis.reporting import load_selectors, plan_chooser, plans_needed, report, selector_folder
    from simmerge_core.analysis.units import Units, build_units

_HOMES = {
    "Direction": "protocol",
    "Rendered": "rendering",
    "Units": "units",
    "build_units": "units",
    "directions": "protocol",
    "load_selectors": "reporting",
    "plan_chooser": "reporting",
    "plans_needed": "reporting",
    "render": "rendering",
    "report": "reporting",
    "selector_folder": "reporting",
}

__all__ = [
    "Direction",
    "Rendered",
    "Units",
    "build_units",
    "directions",
    "load_selectors",
    "plan_chooser",
    "plans_needed",
    "render",
    "report",
    "selector_folder",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "figures":
        return import_module(f"{__name__}.figures")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
