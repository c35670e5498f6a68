"""Merge plans: ordered checkpoints and one action per binary step (§2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simmerge_core.errors import MergeError
from simmerge_core.files import hash_json
from simmerge_core.operators.actions import Action, parse_action


@dataclass(frozen=True, slots=True)
class Plan:
    """M₁ = checkpoints[0]; M_j = actions[j-2](M_{j-1}, checkpoints[j-1]) for j = 2..k (§2.1).

    Attributes
    ----------
    checkpoints
        k ids (or folder names), in merge order; a plan of one checkpoint has no actions and means that checkpoint.
    actions
        k - 1 actions.
    """

    checkpoints: tuple[str, ...]
    actions: tuple[Action, ...]

    def __post_init__(self) -> None:
        if not self.checkpoints or len(self.actions) != len(self.checkpoints) - 1:
            raise MergeError(
                f"A plan of {len(self.checkpoints)} checkpoints needs {max(len(self.checkpoints) - 1, 0)} operators, "
                f"but {len(self.actions)} were given: name one operator per step."
            )

    @property
    def k(self) -> int:
        """Number of checkpoints."""
        return len(self.checkpoints)

    def __str__(self) -> str:
        text = self.checkpoints[0]
        for checkpoint, action in zip(self.checkpoints[1:], self.actions, strict=True):
            text = f"{action}({text}, {checkpoint})"
        return text


def plan_of(checkpoints: tuple[str, ...] | list[str], actions: tuple[str | Action, ...] | list[str | Action]) -> Plan:
    """Build a plan from texts."""
    return Plan(tuple(checkpoints), tuple(parse_action(a) for a in actions))


def recipe(plan: Plan, *, fingerprints: Mapping[str, str], base_fingerprint: str | None, dtype: str) -> dict[str, Any]:
    """What determines the merged weights: content, order, actions and arithmetic; never ids or paths.

    Parameters
    ----------
    fingerprints
        Content hash per checkpoint of the plan.
    base_fingerprint
        Content hash of the base; None when no operator of the plan reads it.
    dtype
        Storage dtype of the merged weights, e.g. ``"float32"``.
    """
    return {
        "checkpoints": [fingerprints[c] for c in plan.checkpoints],
        "actions": [str(a) for a in plan.actions],
        "base": base_fingerprint,
        "dtype": dtype,
    }


def recipe_key(plan: Plan, *, fingerprints: Mapping[str, str], base_fingerprint: str | None, dtype: str) -> str:
    """SHA-256 (hex) of `recipe`."""
    return hash_json(recipe(plan, fingerprints=fingerprints, base_fingerprint=base_fingerprint, dtype=dtype))
