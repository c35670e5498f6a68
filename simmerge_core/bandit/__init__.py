"""The online bandit (§2.4): a selector that keeps learning from the merges that are made."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.bandit.context import Context
    from simmerge_core.bandit.durable import DurableBandit
    from simmerge_core.bandit.encoder import Encoder, train_encoder
    from simmerge_core.bandit.model import BanditModel
    from simmerge_core.bandit.online import OnlineBandit, bandit_folder, bandit_name, bandit_names, drop, is_started
    from simmerge_core.bandit.policies import POLICIES, Choice, LinearBandit, LinTS, LinUCB, UniformBandit
    from simmerge_core.bandit.posterior import Posterior
    from simmerge_core.bandit.propensity import probability_of_best
    from simmerge_core.bandit.replaying import Replay, Round
    from simmerge_core.bandit.steps import PlanStep, choose_plan, expected, plan_step, step_blocks
    from simmerge_core.bandit.warming import Exploration, Tuning, WarmStart, tuned_exploration, warm_start

_HOME = {
    "BanditModel": "model",
    "Choice": "policies",
    "Context": "context",
    "DurableBandit": "durable",
    "Encoder": "encoder",
    "Exploration": "warming",
    "LinTS": "policies",
    "LinUCB": "policies",
    "LinearBandit": "policies",
    "OnlineBandit": "online",
    "POLICIES": "policies",
    "PlanStep": "steps",
    "Posterior": "posterior",
    "Replay": "replaying",
    "Round": "replaying",
    "Tuning": "warming",
    "UniformBandit": "policies",
    "WarmStart": "warming",
    "bandit_folder": "online",
    "bandit_name": "online",
    "bandit_names": "online",
    "choose_plan": "steps",
    "drop": "online",
    "expected": "steps",
    "is_started": "online",
    "plan_step": "steps",
    "probability_of_best": "propensity",
    "step_blocks": "steps",
    "train_encoder": "encoder",
    "tuned_exploration": "warming",
    "warm_start": "warming",
}

__all__ = [
    "POLICIES",
    "BanditModel",
    "Choice",
    "Context",
    "DurableBandit",
    "Encoder",
    "Exploration",
    "LinTS",
    "LinUCB",
    "LinearBandit",
    "OnlineBandit",
    "PlanStep",
    "Posterior",
    "Replay",
    "Round",
    "Tuning",
    "UniformBandit",
    "WarmStart",
    "bandit_folder",
    "bandit_name",
    "bandit_names",
    "choose_plan",
    "drop",
    "expected",
    "is_started",
    "plan_step",
    "probability_of_best",
    "step_blocks",
    "train_encoder",
    "tuned_exploration",
    "warm_start",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
