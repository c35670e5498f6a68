"""The merge steps of a plan as decision rounds: contexts from propagated features (§2.4, App. D)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simmerge_core.bandit.context import Context
from simmerge_core.bandit.encoder import Encoder
from simmerge_core.bandit.policies import LinearBandit
from simmerge_core.operators.actions import Action, parse_action
from simmerge_core.planning.pairs import PairTable
from simmerge_core.planning.propagation import mixture_weights, propagate
from simmerge_core.planning.target import Target
from simmerge_core.plans import Plan
from simmerge_core.selector.block import FeatureBlock

Choose = Callable[[Context, int], str]
"""Names the arm for a context and the number of its step, from 1."""


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One decision of a plan.

    Attributes
    ----------
    context
        z of the step.
    turned
        Whether the arms are seen from the added checkpoint: o(a, b; α) = o(b, a; 1 − α).
    """

    context: Context
    turned: bool

    def action(self, arm: str) -> Action:
        """What is applied to (intermediate, added checkpoint) when this arm is chosen."""
        action = parse_action(arm)
        return action.mirrored() if self.turned else action

    def arm(self, action: Action) -> Action:
        """The arm that stands for an action on (intermediate, added checkpoint)."""
        return action.mirrored() if self.turned else action


def step_blocks(
    table: PairTable, target: Target, order: Sequence[str], alphas: Sequence[float]
) -> tuple[list[FeatureBlock], bool]:
    """Features of the next step of a plan, one row per target task, and whether it is turned.

    With one target task the side that holds its expert is a, as in the labels. With several, whose experts may stand
    on either side, a step is seen as the plan orders it, so that an arm means the same on all of them.

    Parameters
    ----------
    table
        Features of all pairs of the plan's checkpoints on the target's tasks.
    order
        The checkpoints merged so far, then the one that is added.
    alphas
        Alpha of each step so far.
    """
    *merged, added = (table.index(c) for c in order)
    turned = is_turned(dict(zip(table.checkpoints, table.domains, strict=True)), target, order)
    weights = np.ones((1, 1))
    for alpha in alphas:
        weights = mixture_weights(weights, alpha)
    blocks = []
    for task in target.tasks:
        left = any(table.domains[m] == task for m in merged)
        right = table.domains[added] == task
        x = propagate(
            table.x[table.tasks.index(task)],
            np.array([merged]),
            weights,
            np.array([added]),
            feature_names=table.feature_names,
            intermediate_first=not turned,
        )
        sides = (right, left) if turned else (left, right)
        blocks.append(FeatureBlock(x, np.array([task]), *(np.array([side]) for side in sides)))
    return blocks, turned


def is_turned(domains: Mapping[str, str], target: Target, order: Sequence[str]) -> bool:
    """Whether the last step of an order is seen from the added checkpoint: it alone is the single task's expert."""
    if len(target.tasks) > 1:
        return False
    *merged, added = (domains[c] == target.tasks[0] for c in order)
    return added and not any(merged)


def plan_step(
    encoder: Encoder, table: PairTable, target: Target, order: Sequence[str], alphas: Sequence[float]
) -> PlanStep:
    """The next step of a plan as a decision; parameters as in `step_blocks`."""
    blocks, turned = step_blocks(table, target, order, alphas)
    return PlanStep(encoder.context(blocks, target.weights), turned)


def choose_plan(choose: Choose, encoder: Encoder, table: PairTable, target: Target, order: Sequence[str]) -> Plan:
    """Let a policy choose the operator of every step along an order, each on what the steps before it have made."""
    actions: list[Action] = []
    for number in range(1, len(order)):
        step = plan_step(encoder, table, target, order[: number + 1], [a.alpha for a in actions])
        actions.append(step.action(choose(step.context, number)))
    return Plan(tuple(order), tuple(actions))


def expected(
    encoder: Encoder, bandit: LinearBandit, table: PairTable, target: Target, plan: Plan
) -> list[tuple[float, float]]:
    """What a bandit expects after each step of a plan: posterior mean, and deviation times the exploration scale."""
    found = []
    for number, action in enumerate(plan.actions, start=1):
        alphas = [a.alpha for a in plan.actions[: number - 1]]
        step = plan_step(encoder, table, target, plan.checkpoints[: number + 1], alphas)
        arm = bandit.number(str(step.arm(action)))
        mean, deviation = bandit.predict(step.context)
        found.append((float(mean[arm]), float(bandit.exploration * deviation[arm])))
    return found
