"""Labels: which merges are evaluated, their scores, and the pool of processes that makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.labels.failures import Failure, LabelFailures
    from simmerge_core.labels.multiway import design_plans, designed_configurations
    from simmerge_core.labels.pairs import design, kind_of, shares_of, split_of, within_budget
    from simmerge_core.labels.pool import kept_workers
    from simmerge_core.labels.scoring import label_pairs, label_plans, score_plans, score_standalone

_HOMES = {
    "Failure": "failures",
    "LabelFailures": "failures",
    "design": "pairs",
    "design_plans": "multiway",
    "designed_configurations": "multiway",
    "kept_workers": "pool",
    "kind_of": "pairs",
    "label_pairs": "scoring",
    "label_plans": "scoring",
    "score_plans": "scoring",
    "score_standalone": "scoring",
    "shares_of": "pairs",
    "split_of": "pairs",
    "within_budget": "pairs",
}

__all__ = [
    "Failure",
    "LabelFailures",
    "design",
    "design_plans",
    "designed_configurations",
    "kept_workers",
    "kind_of",
    "label_pairs",
    "label_plans",
    "score_plans",
    "score_standalone",
    "shares_of",
    "split_of",
    "within_budget",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
