"""Features of an ordered pair on a task (App. B.4): their declaration, and their computation.

Names are imported on first use: the tables read the declaration, and the computation reads the tables.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.features.columns import (
        FEATURE_GROUPS,
        FEATURE_VERSION,
        FEATURES,
        MODULES,
        PAPER_GROUPS,
        STATISTICS,
    )
    from simmerge_core.features.pairwise import pairwise_features
    from simmerge_core.features.structure import structural_features

_HOME = {
    "FEATURES": "columns",
    "FEATURE_GROUPS": "columns",
    "FEATURE_VERSION": "columns",
    "MODULES": "columns",
    "PAPER_GROUPS": "columns",
    "STATISTICS": "columns",
    "pairwise_features": "pairwise",
    "structural_features": "structure",
}

__all__ = [
    "FEATURES",
    "FEATURE_GROUPS",
    "FEATURE_VERSION",
    "MODULES",
    "PAPER_GROUPS",
    "STATISTICS",
    "pairwise_features",
    "structural_features",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
