"""Plans of k checkpoints (§2.1, §2.3.2): propagation of features (App. D), scoring and search."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.planning.baselines import expert_last_best_fixed, random_order
    from simmerge_core.planning.explaining import explain_plan
    from simmerge_core.planning.pairs import PairTable, pair_table
    from simmerge_core.planning.plan_search import search
    from simmerge_core.planning.propagation import mixture_weights, propagate
    from simmerge_core.planning.settling import LEAST_DIFFERENCE, Settlement, settle
    from simmerge_core.planning.target import Target, target_of

_HOME = {
    "LEAST_DIFFERENCE": "settling",
    "PairTable": "pairs",
    "Settlement": "settling",
    "Target": "target",
    "expert_last_best_fixed": "baselines",
    "explain_plan": "explaining",
    "mixture_weights": "propagation",
    "pair_table": "pairs",
    "propagate": "propagation",
    "random_order": "baselines",
    "search": "plan_search",
    "settle": "settling",
    "target_of": "target",
}

__all__ = [
    "LEAST_DIFFERENCE",
    "PairTable",
    "Settlement",
    "Target",
    "expert_last_best_fixed",
    "explain_plan",
    "mixture_weights",
    "pair_table",
    "propagate",
    "random_order",
    "search",
    "settle",
    "target_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
