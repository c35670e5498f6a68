"""Binary merge operators o(a, b; α) (§2.1, App. A), each in its own file under `rules`.

α is the weight of the SECOND checkpoint b in every operator. (App. A.3 of the paper writes TIES the other way round; at
α = 1/2 both readings are the same.) All operators mirror: o(a, b; α) = o(b, a; 1 − α).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simmerge_core.operators.actions import ACTION_SETS, Action, parse_action

if TYPE_CHECKING:
    from simmerge_core.operators.operator import Block, Operator, Parameter, Pass, Setting
    from simmerge_core.operators.registry import OPERATORS, check_action, setting_of

_HOMES = {
    "OPERATORS": "registry",
    "check_action": "registry",
    "setting_of": "registry",
    "Block": "operator",
    "Operator": "operator",
    "Parameter": "operator",
    "Pass": "operator",
    "Setting": "operator",
}

__all__ = [
    "ACTION_SETS",
    "OPERATORS",
    "Action",
    "Block",
    "Operator",
    "Parameter",
    "Pass",
    "Setting",
    "check_action",
    "parse_action",
    "setting_of",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
