"""All operators by name, found in `rules`: a new operator is one new file there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from simmerge_core.errors import OperatorError
from simmerge_core.operators import rules
from simmerge_core.operators.actions import Action
from simmerge_core.operators.operator import Operator, Setting


def _found() -> Mapping[str, Operator]:
    operators: dict[str, Operator] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(rules.__path__)):
        operator: Operator = importlib.import_module(f"{rules.__name__}.{module}").OPERATOR
        operators[operator.name] = operator
    return MappingProxyType(operators)


OPERATORS: Mapping[str, Operator] = _found()
"""Every operator by name."""


def operator_of(action: Action) -> Operator:
    """The operator of an action.

    Raises
    ------
    OperatorError
        If there is none of that name.
    """
    operator = OPERATORS.get(action.operator)
    if operator is None:
        raise OperatorError(f"Operator {action.operator!r} is unknown: choose one of {', '.join(OPERATORS)}.")
    return operator


def setting_of(action: Action, *, size: int = 0, tensor: str = "") -> Setting:
    """The action's arguments, checked, defaults filled in."""
    return operator_of(action).setting(alpha=action.alpha, params=dict(action.params), size=size, tensor=tensor)


def check_action(action: Action) -> None:
    """Refuse an action that cannot be applied.

    Raises
    ------
    OperatorError
        If its operator or a parameter is unknown, or a value is out of range.
    """
    setting_of(action)
