"""Execution of merge plans: streaming to a Hugging Face folder, or in memory for labels."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.merging.execute import (
        CONFIG,
        PROVENANCE,
        MergedCheckpoint,
        execute_plan,
        execute_plan_from_catalog,
    )
    from simmerge_core.merging.memory import load_weights, merge_tensors
    from simmerge_core.merging.steps import needs_base

_HOMES = {
    "CONFIG": "execute",
    "PROVENANCE": "execute",
    "MergedCheckpoint": "execute",
    "execute_plan": "execute",
    "execute_plan_from_catalog": "execute",
    "load_weights": "memory",
    "merge_tensors": "memory",
    "needs_base": "steps",
}

__all__ = [
    "CONFIG",
    "PROVENANCE",
    "MergedCheckpoint",
    "execute_plan",
    "execute_plan_from_catalog",
    "load_weights",
    "merge_tensors",
    "needs_base",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
