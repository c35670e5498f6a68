"""Why the steps of a plan take the operators they take: the selector's choices, explained on the features they read.

From the second step on these are features of an intermediate that was never made (App. D): what is explained is what
the selector made of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from simmerge_core.operators.actions import Action, parse_action
from simmerge_core.planning.pairs import PairTable, pair_table
from simmerge_core.planning.propagation import mixture_weights, propagate
from simmerge_core.planning.target import Target, target_of
from simmerge_core.selector.block import FeatureBlock
from simmerge_core.selector.explanation import Explanation, explain_blocks
from simmerge_core.selector.mlp import Selector


def explain_plan(
    selector: Selector,
    features: pl.DataFrame,
    order: Sequence[str],
    actions: Sequence[Action | str],
    task: str | Sequence[str] | Target,
    *,
    combine: str = "mean",
    weights: Sequence[float] | None = None,
    reference: Action | str | None = None,
) -> list[Explanation]:
    """Explain each step of a plan that `search` found with its default orientation and propagation.

    Parameters
    ----------
    features
        Table `pairwise_features` with its `task`, at least the pairs among `order`.
    order, actions
        k checkpoints and k − 1 actions.
    task, combine, weights
        The target, as in `search`.
    reference
        What each step's action is compared with, as in `selector.explain`: the best other action by default.

    Returns
    -------
    k − 1 explanations; `lead` is in units of the target utility.

    Raises
    ------
    SelectionError
        If a checkpoint, a pair or an action is unknown, or an action is compared with itself.
    """
    target = target_of(task, combine=combine, weights=weights)
    table = pair_table(features, checkpoints=order, tasks=target.tasks, feature_names=selector.feature_names)
    chosen = [parse_action(action) for action in actions]
    members, shares = np.array([[table.index(order[0])]]), np.ones((1, 1))
    found: list[Explanation] = []
    for checkpoint, action in zip(order[1:], chosen, strict=True):
        added = np.array([table.index(checkpoint)])
        shown = [_shown(selector, table, t, members, shares, added) for t in range(len(target.tasks))]
        blocks, columns = [block for block, _ in shown], [at for _, at in shown]
        found.append(
            explain_blocks(
                selector,
                blocks,
                action=action,
                reference=reference,
                columns=columns,
                over=target.over,
                checkpoints=order[: len(found) + 2],
            )
        )
        members = np.concatenate([members, added[:, None]], axis=1)
        shares = mixture_weights(shares, action.alpha)
    return found


def _shown(
    selector: Selector, table: PairTable, t: int, members: np.ndarray, shares: np.ndarray, added: np.ndarray
) -> tuple[FeatureBlock, np.ndarray]:
    """The row that the selector is shown for a step, the task's expert first, and its columns for the actions."""
    experts = np.array(table.domains) == table.tasks[t]
    left, right = experts[members].any(axis=1), experts[added]
    mirrored = [a.mirrored() for a in selector.actions]
    turn = bool(right[0] and not left[0]) and all(m in selector.actions for m in mirrored)
    x = propagate(table.x[t], members, shares, added, feature_names=table.feature_names, intermediate_first=not turn)
    tasks = np.full(1, table.tasks[t])
    if not turn:
        return FeatureBlock(x, tasks, left, right), np.arange(len(mirrored))
    return FeatureBlock(x, tasks, right, left), np.array([selector.actions.index(m) for m in mirrored])
