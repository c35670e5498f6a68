"""Tables of the data contract: definitions, validation, and the data root that holds them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.tables.definitions import (
        ACTIVE_LABELS,
        BANDIT_ROUNDS,
        CHECKPOINTS,
        FUNCTIONAL_SIMILARITY,
        MERGE_LABELS,
        MERGE_OUTCOMES,
        MERGE_PLANS,
        PAIRWISE_FEATURES,
        PLAN_LABELS,
        STANDALONE_SCORES,
        TABLES,
        WEIGHT_GRAM,
    )
    from simmerge_core.tables.schema import Column, Table
    from simmerge_core.tables.store import DataRoot

__all__ = [
    "ACTIVE_LABELS",
    "BANDIT_ROUNDS",
    "CHECKPOINTS",
    "FUNCTIONAL_SIMILARITY",
    "MERGE_LABELS",
    "MERGE_OUTCOMES",
    "MERGE_PLANS",
    "PAIRWISE_FEATURES",
    "PLAN_LABELS",
    "STANDALONE_SCORES",
    "TABLES",
    "WEIGHT_GRAM",
    "Column",
    "DataRoot",
    "Table",
]

_HOME = {"Column": "schema", "DataRoot": "store", "Table": "schema"}


def __getattr__(name: str) -> Any:
    # On access, not on import: `definitions` reads the feature columns, which themselves are declared with `schema`.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'definitions')}"), name)
