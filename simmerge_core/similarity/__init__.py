"""Similarity of two checkpoints: on probes (App. B.2) and in their weights (App. B.3).

Names are imported on first use, so that importing this package does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.similarity.gram import weight_gram
    from simmerge_core.similarity.outputs import functional, functional_many, self_signals
    from simmerge_core.similarity.weights import pair_products, structural

_HOME = {
    "functional": "outputs",
    "functional_many": "outputs",
    "pair_products": "weights",
    "self_signals": "outputs",
    "structural": "weights",
    "weight_gram": "gram",
}

__all__ = ["functional", "functional_many", "pair_products", "self_signals", "structural", "weight_gram"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
