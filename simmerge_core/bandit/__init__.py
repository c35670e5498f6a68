"""The online bandit (§2.4): a selector that keeps learning from the merges that are made."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.bandit.context import Context
    from simmerge_core.bandit.policies import POLICIES, Choice, LinearBandit, LinTS, LinUCB, UniformBandit
    from simmerge_core.bandit.posterior import Posterior
    from simmerge_core.bandit.propensity import probability_of_best

_HOME = {
    "Choice": "policies",
    "Context": "context",
    "LinTS": "policies",
    "LinUCB": "policies",
    "LinearBandit": "policies",
    "POLICIES": "policies",
    "Posterior": "posterior",
    "UniformBandit": "policies",
    "probability_of_best": "propensity",
}

__all__ = [
    "POLICIES",
    "Choice",
    "Context",
    "LinTS",
    "LinUCB",
    "LinearBandit",
    "Posterior",
    "UniformBandit",
    "probability_of_best",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
