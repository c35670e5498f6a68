"""A plan's steps with their operators looked up and checked."""

from __future__ import annotations

from dataclasses import dataclass

from simmerge_core.operators.actions import Action
from simmerge_core.operators.operator import Operator, Setting
from simmerge_core.operators.registry import operator_of, setting_of
from simmerge_core.plans import Plan


@dataclass(frozen=True, slots=True)
class Step:
    """One binary step: its operator and checked arguments."""

    action: Action
    operator: Operator
    setting: Setting

    def for_tensor(self, name: str, size: int) -> Setting:
        """The arguments for one tensor."""
        return Setting(self.setting.alpha, self.setting.params, size, name)


def steps_of(plan: Plan) -> tuple[Step, ...]:
    """The k - 1 steps of a plan.

    Raises
    ------
    OperatorError
        If an operator or a parameter is unknown or out of range.
    """
    return tuple(Step(a, operator_of(a), setting_of(a)) for a in plan.actions)


def needs_base(plan: Plan) -> bool:
    """Whether some operator of the plan reads the base.

    Raises
    ------
    OperatorError
        If an operator of the plan is unknown.
    """
    return any(operator_of(a).needs_base for a in plan.actions)
