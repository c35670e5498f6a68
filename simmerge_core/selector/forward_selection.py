"""Which few actions carry the headroom of a wide set: greedy, on training pairs only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import parse_action


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the selection: what was added, and what an honest oracle over all chosen so far is worth."""

    added: tuple[str, ...]
    utility: float


def forward_selection(
    utilities: Mapping[str, np.ndarray], actions: Sequence[str], *, most: int, start: Sequence[str] = ()
) -> list[Step]:
    """Add, one step at a time, the actions that most raise the honest oracle's utility.

    An action comes together with its mirror image (`slerp@0.3` with `slerp@0.7`), so that every set can be read from
    either side of a pair.

    Parameters
    ----------
    utilities
        Per item set (two): utility of each action on n training pairs, (n, actions), float64. The oracle chooses on one
        set and is scored on the other, both ways.
    most
        Most actions in the result, `start` included.
    start
        Actions that are in from the beginning; empty begins with the best fixed action.

    Returns
    -------
    list of Step
        The first is the start; the selection ends early where nothing raises the utility.

    Raises
    ------
    SelectionError
        If there are not exactly two item sets, or an action of `start` is unknown.
    """
    if len(utilities) != 2:
        raise SelectionError(
            f"Forward selection needs two item sets, not {len(utilities)}: one to choose on and one to score on."
        )
    first, second = (np.asarray(utilities[name], dtype=np.float64) for name in sorted(utilities))
    at = {action: column for column, action in enumerate(actions)}
    unknown = [action for action in start if action not in at]
    if unknown:
        raise SelectionError(f"The actions {unknown} are not labelled: start from some of {', '.join(actions)}.")
    groups = list(dict.fromkeys(tuple(sorted({a, str(parse_action(a).mirrored())} & set(actions))) for a in actions))

    def worth(chosen: Sequence[str]) -> float:
        columns = np.array([at[a] for a in chosen])
        return honest_oracle(first[:, columns], second[:, columns])

    begun = tuple(start) or max(groups, key=lambda group: worth(group) if len(group) == 1 else -np.inf)
    steps, chosen = [Step(begun, worth(begun))], list(begun)
    while True:
        open_groups = [g for g in groups if not set(g) <= set(chosen) and len({*chosen, *g}) <= most]
        if not open_groups:
            return steps
        best = max(open_groups, key=lambda group: worth([*chosen, *(a for a in group if a not in chosen)]))
        added = tuple(a for a in best if a not in chosen)
        value = worth([*chosen, *added])
        if value <= steps[-1].utility:
            return steps
        chosen += added
        steps.append(Step(added, value))


def honest_oracle(first: np.ndarray, second: np.ndarray) -> float:
    """Mean utility of the best per row on one item set, scored on the other, both ways; tables (n, actions)."""
    return float(np.mean([_chosen(x, y) for x, y in ((first, second), (second, first))]))


def _chosen(seen: np.ndarray, scored: np.ndarray) -> float:
    """Mean of `scored` at the best of `seen`, exact ties shared."""
    best = seen >= seen.max(axis=1, keepdims=True) - 1e-12
    return float(((best / best.sum(axis=1, keepdims=True)) * scored).sum(axis=1).mean())
