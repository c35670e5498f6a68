"""Actions: what a selector or bandit chooses among, an operator with its alpha and parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from simmerge_core.errors import OperatorError

_ACTION = re.compile(
    r"(?P<operator>[a-z][a-z0-9_]*)(@(?P<alpha>[0-9.eE+-]+))?(?P<params>(,[a-z][a-z0-9_]*=[0-9.eE+-]+)*)"
)


def _exact(value: float) -> str:
    """The shortest text that reads back as the same number, since recipes are keyed by it."""
    return repr(float(value)).removesuffix(".0")


@dataclass(frozen=True, slots=True, order=True)
class Action:
    """An operator with its alpha and parameters, written ``operator@alpha[,name=value...]``.

    Attributes
    ----------
    operator
        A name in ``operators.OPERATORS``.
    alpha
        Weight of the second checkpoint, in [0, 1]; every operator of this project uses this one meaning.
    params
        Further parameters as (name, value), sorted by name; those left out take the operator's defaults.
    """

    operator: str
    alpha: float = 0.5
    params: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return f"{self.operator}@{_exact(self.alpha)}" + "".join(
            f",{name}={_exact(value)}" for name, value in self.params
        )

    def mirrored(self) -> Action:
        """The action that gives the same merge when the two checkpoints change places: o(a, b; α) = o(b, a; 1 − α)."""
        return Action(self.operator, round(1.0 - self.alpha, 12), self.params)


def parse_action(text: str | Action) -> Action:
    """Read ``linear``, ``slerp@0.3`` or ``ties@0.5,tau=0.01``; the operator's existence is checked by `operators`.

    Raises
    ------
    OperatorError
        If the text has not this form or alpha lies outside [0, 1].
    """
    if isinstance(text, Action):
        return text
    match = _ACTION.fullmatch(text.strip())
    if match is None:
        raise OperatorError(
            f"Action {text!r} is not of the form operator[@alpha][,name=value...]: write for example slerp@0.3."
        )
    try:
        alpha = float(match["alpha"]) if match["alpha"] else 0.5
        params = tuple(sorted((p.split("=")[0], float(p.split("=")[1])) for p in match["params"].split(",")[1:]))
    except ValueError as error:
        raise OperatorError(
            f"Action {text!r} has a value that is not a number: write for example slerp@0.3."
        ) from error
    if len({name for name, _ in params}) < len(params):
        raise OperatorError(f"Action {text!r} gives a parameter twice: give each once.")
    if not 0.0 <= alpha <= 1.0:
        raise OperatorError(
            f"Action {text!r} has alpha {alpha:g} outside [0, 1]: alpha is the weight of the second checkpoint."
        )
    return Action(match["operator"], alpha, params)


ACTION_SETS: Mapping[str, tuple[Action, ...]] = {
    # §2.1: the paper's operators at equal weights.
    "paper": tuple(map(parse_action, ("linear@0.5", "slerp@0.5", "ties@0.5"))),
    # The paper's set plus the actions that carried the headroom on small catalogs (ARCHITECTURE.md, "Actions").
    "extended": tuple(
        map(
            parse_action,
            (
                "linear@0.5",
                "slerp@0.5",
                "ties@0.5",
                "task_arithmetic@0.5",
                "norm_balanced@0.5",
                "slerp@0.3",
                "slerp@0.7",
            ),
        )
    ),
}
