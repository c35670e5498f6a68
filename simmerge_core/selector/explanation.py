"""Which feature groups moved a choice: exact Shapley values of the lead of one action over another.

The players are the feature groups that the selector reads, and the task's code. The value of a coalition is the
predicted lead when the groups outside of it stand at their training mean (zero after standardisation; for the task code
equal shares of all tasks). A group's contribution is the mean change of the value when it joins, over all orders of
joining (Shapley 1953; Lundberg & Lee 2017 for predictions, there with a sample in place of the mean). Contributions add
up to the lead minus the lead at the mean, and a group that changes nothing gets nothing.

What is explained is the selector, not the checkpoints: groups that say the same share the credit, and a row with some
groups at their mean need not be one that could occur.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.errors import SelectionError
from simmerge_core.features.columns import FEATURE_GROUPS
from simmerge_core.operators.actions import Action, parse_action
from simmerge_core.selector.block import FeatureBlock, block_of
from simmerge_core.selector.calibration import Calibration
from simmerge_core.selector.mlp import Selector

TASK_CODE = "task code"
BEST_FIXED = "best_fixed"
_LEADING = 3  # features of a group that are named

_FEATURE = pl.Struct({"feature": pl.String, "task": pl.String, "value": pl.Float64, "deviations": pl.Float64})


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one action is predicted to be better than another.

    Attributes
    ----------
    action, reference
        The chosen action and the one it is compared with.
    lead
        Predicted utility of `action` minus that of `reference`, in units of the metric.
    half_width
        Of the calibrated interval of `lead`, on one task; None for several.
    usual
        The lead with every group at its training mean.
    groups
        One row per group, largest contribution first: ``group``; ``contribution`` (they add up to lead − usual); and
        ``features``, the group's features that lie farthest from their training mean: feature, task, value, and
        deviations, the distance in standard deviations.
    """

    action: Action
    reference: Action
    lead: float
    half_width: float | None
    usual: float
    groups: pl.DataFrame

    def rows(self) -> list[tuple[str, float, str]]:
        """Group, contribution, and its leading features in words, to be shown as a table."""
        return [
            (group, contribution, ", ".join(f"{f['feature']} {f['deviations']:+.1f} SD" for f in features))
            for group, contribution, features in self.groups.iter_rows()
        ]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "action": str(self.action),
            "reference": str(self.reference),
            "lead": self.lead,
            "half_width": self.half_width,
            "usual": self.usual,
            "groups": self.groups.to_dicts(),
        }


def explain(
    selector: Selector,
    features: pl.DataFrame,
    *,
    action: Action | str | None = None,
    reference: Action | str | None = None,
) -> Explanation:
    """Explain the selector's choice for one pair on one task.

    Parameters
    ----------
    features
        One row of `pairwise_features` with its `task`.
    action
        The chosen one by default.
    reference
        What it is compared with: the best other action by default, or ``best_fixed``, the action with the highest mean
        over the training rows.

    Raises
    ------
    SelectionError
        If there is not exactly one row, or an action is unknown or compared with itself.
    """
    block = block_of(features, selector.feature_names)
    if len(block) != 1:
        raise SelectionError(f"An explanation is of one pair on one task, not of {len(block)} rows: give one.")
    return explain_blocks(
        selector, [block], action=action, reference=reference, checkpoints=features.select("a", "b").row(0)
    )


def explain_blocks(
    selector: Selector,
    blocks: Sequence[FeatureBlock],
    *,
    action: Action | str | None = None,
    reference: Action | str | None = None,
    among: Sequence[Action] | None = None,
    columns: Sequence[np.ndarray] | None = None,
    over: Callable[[np.ndarray], np.ndarray] | None = None,
    checkpoints: Collection[str] = (),
) -> Explanation:
    """Explain a choice that is made on T rows at once: one pair on each target task.

    Parameters
    ----------
    blocks
        T blocks of one row; a group is absent on all of them or on none.
    among
        The actions to choose among; the selector's by default.
    columns
        Per block, the selector's columns that hold `among`; another order where a row shows the pair turned around.
    over
        Utility over tasks from (T, …) utilities on each; not needed for T = 1.
    checkpoints
        What the row is a merge of: the half-width is another where the selector has no labels of one.
    """
    among = tuple(selector.actions if among is None else among)
    columns = [np.array([selector.actions.index(a) for a in among])] * len(blocks) if columns is None else columns
    players = _players(selector)
    present = _coalitions(len(players)) @ np.stack(list(players.values()))  # (2^g, inputs) of 0 and 1
    mean = np.zeros(selector.scaler.width)
    mean[len(selector.feature_names) :] = 1.0 / max(1, len(selector.tasks))
    parts = []
    for block, at in zip(blocks, columns, strict=True):
        x = np.where(present, selector.scaler(block), mean)
        parts.append(selector.utilities_of(x)[:, :, at])
    by_member = np.stack(parts)  # (T, members, 2^g, actions)
    utilities = (over or (lambda values: values[0]))(by_member.mean(axis=1))  # (2^g, actions)
    chosen, other = _compared(selector, among, utilities[-1], action, reference)
    lead = utilities[:, chosen] - utilities[:, other]
    groups = pl.DataFrame(
        {
            "group": list(players),
            "contribution": shapley_values(lead),
            "features": [_leading(selector, blocks, inputs) for inputs in players.values()],
        },
        schema={"group": pl.String, "contribution": pl.Float64, "features": pl.List(_FEATURE)},
    )
    order = groups.sort(pl.col("contribution").abs(), descending=True, maintain_order=True)
    half_width = None
    if len(blocks) == 1:
        half_width = _half_width(selector.calibration_of(checkpoints), by_member[0, :, -1, [chosen, other]])
    return Explanation(among[chosen], among[other], float(lead[-1]), half_width, float(lead[0]), order)


def _half_width(calibration: Calibration, compared: np.ndarray) -> float:
    """Of the lead between two predictions for one pair, (2, members)."""
    first, second = calibration.chosen.half_width(compared.std(axis=1))
    spread = np.asarray((compared[0] - compared[1]).std())
    return float(calibration.difference_half_width("same_pair", spread, first, second))


def shapley_values(values: np.ndarray) -> np.ndarray:
    """(g,) Shapley values of a game.

    Parameters
    ----------
    values
        (2^g,) float64 value of every coalition; player p belongs to coalition number c where bit p of c is set.
    """
    g = len(values).bit_length() - 1
    sizes = np.array([c.bit_count() for c in range(len(values))])
    weight = np.array([math.factorial(s) * math.factorial(g - s - 1) / math.factorial(g) for s in range(g)])
    out = np.empty(g)
    for player in range(g):
        without = np.flatnonzero((np.arange(len(values)) >> player) & 1 == 0)
        out[player] = np.sum(weight[sizes[without]] * (values[without | (1 << player)] - values[without]))
    return out


def _coalitions(g: int) -> np.ndarray:
    """(2^g, g) of 0 and 1: who belongs to each coalition."""
    return (np.arange(2**g)[:, None] >> np.arange(g)) & 1


def _players(selector: Selector) -> dict[str, np.ndarray]:
    """(inputs,) of 0 and 1 by group, in the order of the feature table; the task code last."""
    names = np.array([*selector.feature_names, *(TASK_CODE for _ in selector.tasks)])
    groups = {**FEATURE_GROUPS, TASK_CODE: (TASK_CODE,)}
    found = {group: np.isin(names, members).astype(np.int64) for group, members in groups.items()}
    return {group: inputs for group, inputs in found.items() if inputs.any()}


def _compared(
    selector: Selector,
    among: Sequence[Action],
    utilities: np.ndarray,
    action: Action | str | None,
    reference: Action | str | None,
) -> tuple[int, int]:
    order = np.argsort(-np.round(utilities, 12), kind="stable")
    chosen = int(order[0]) if action is None else _index(among, action)
    if reference is None:
        other = next((int(i) for i in order if i != chosen), chosen)
    elif reference == BEST_FIXED:
        fixed = [selector.targets.difference_mean[selector.actions.index(a)] for a in among]
        other = int(np.argmax(fixed))
    else:
        other = _index(among, reference)
    if chosen == other:
        raise SelectionError(f"The action {among[chosen]} is compared with itself: name another reference.")
    return chosen, other


def _index(among: Sequence[Action], action: Action | str) -> int:
    wanted = parse_action(action)
    if wanted not in among:
        raise SelectionError(f"The selector does not choose {wanted}: name one of {', '.join(map(str, among))}.")
    return list(among).index(wanted)


def _leading(selector: Selector, blocks: Sequence[FeatureBlock], inputs: np.ndarray) -> list[dict[str, Any]]:
    """The features among `inputs` that are farthest from their training mean on any of the rows."""
    named = np.flatnonzero(inputs[: len(selector.feature_names)])
    found: list[tuple[float, dict[str, Any]]] = []
    for block in blocks:
        deviations = (block.x[0] - selector.scaler.mean) / selector.scaler.scale
        for i in named:
            feature = {"feature": selector.feature_names[i], "task": str(block.tasks[0]), "value": float(block.x[0, i])}
            found.append((abs(float(deviations[i])), {**feature, "deviations": float(deviations[i])}))
    return [feature for _, feature in sorted(found, key=lambda entry: -entry[0])[:_LEADING]]
