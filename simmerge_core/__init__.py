"""SimMerge: predict which fine-tuned checkpoints to merge, with which operator and in what order.

The library behind the pipeline: catalogs, checkpoints, operators, merging, similarity signals, labels, the trained
selector and plan search. It knows nothing of the orchestrator, and importing it imports none of torch, transformers or
lm-eval: each subpackage does so when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.catalog import Catalog, load_catalog

__all__ = ["Catalog", "load_catalog"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        import simmerge_core.catalog

        return getattr(simmerge_core.catalog, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
