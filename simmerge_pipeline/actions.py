"""Which action sets a catalog has, and which actions its merges are labelled under."""

from __future__ import annotations

from simmerge_core.catalog import Catalog
from simmerge_core.operators.actions import ACTION_SETS, Action


def action_sets(catalog: Catalog) -> dict[str, tuple[Action, ...]]:
    """Every named action set: ``paper``, ``extended`` and the catalog's own."""
    return {name: catalog.actions(name) for name in dict.fromkeys((*ACTION_SETS, *catalog.action_sets))}


def labelled_actions(catalog: Catalog) -> list[str]:
    """The union of all sets, each action once, as texts."""
    return list(dict.fromkeys(str(action) for actions in action_sets(catalog).values() for action in actions))
