"""Calibrated intervals of plans: of their predicted utility, and of the first plan's lead over each.

A selector is calibrated on merges of two checkpoints (`selector.calibration`). For k = 2 a plan is such a merge. For
larger k the last step reads propagated features (App. D), whose error no calibration has seen: there the intervals
are a lower bound of the uncertainty. In all cases plans were picked for high predictions out of many, so that the best
of them are more often too high than the level says. A plan with a checkpoint that the selector has no labels of, and a
difference in which either plan holds one, has the intervals for these.

Over several tasks, with half-widths hₜ on the single ones: for a mean Σ wₜ hₜ, which is what errors that move together
give and wide for others; for the minimum [minₜ(uₜ − hₜ), minₜ(uₜ + hₜ)], which holds whenever all single ones do.
Steps that are aggregated by mean or sum are treated as tasks are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simmerge_core.planning.scoring import Prefixes, Scorer
from simmerge_core.selector.mlp import Selector

COLUMNS = ("low", "high", "difference_low", "difference_high", "distinguishable")


def plan_intervals(scorer: Scorer, plans: Prefixes, ensemble: np.ndarray) -> Mapping[str, np.ndarray | list[None]]:
    """Intervals of ranked plans; nulls for a model that has no calibration.

    Parameters
    ----------
    plans
        n plans, the first of which the others are compared with.
    ensemble
        (members, T, n, k − 1) utilities after each step, as `Scorer.ensemble` gives them.

    Returns
    -------
    dict
        `COLUMNS`, each (n,): the interval of the utility; the interval of the first plan's utility minus this one's;
        whether the latter excludes zero. The first plan's difference from itself is zero.
    """
    model = scorer.model
    if not isinstance(model, Selector):
        return {name: [None] * len(plans) for name in COLUMNS}
    value = ensemble.mean(axis=0)  # (T, n, k - 1)
    known = np.isin(scorer.table.checkpoints, model.checkpoints)[plans.members].all(axis=1)  # (n,)
    deviation = ensemble.std(axis=0)
    half = np.where(
        known[:, None],
        model.calibration.chosen.half_width(deviation),
        model.unseen_calibration.chosen.half_width(deviation),
    )
    low, high = _over_tasks(scorer, _over_steps(scorer, value), _over_steps(scorer, half))
    apart = ensemble[:, :, :1] - ensemble
    spread = apart.std(axis=0)
    between = np.empty_like(half)
    kinds, both_known = _kinds(plans), known & known[0]
    for kind in np.unique(kinds):
        for calibration, side in ((model.calibration, both_known), (model.unseen_calibration, ~both_known)):
            of = side & (kinds == kind)
            between[:, of] = calibration.difference_half_width(kind, spread[:, of], half[:, :1], half[:, of])
    difference_low, difference_high = _difference_over_tasks(
        scorer, _over_steps(scorer, apart.mean(axis=0)), _over_steps(scorer, between), (low, high)
    )
    difference_low[0] = difference_high[0] = 0.0
    return {
        "low": low,
        "high": high,
        "difference_low": difference_low,
        "difference_high": difference_high,
        "distinguishable": (difference_low > 0) | (difference_high < 0),
    }


def _kinds(plans: Prefixes) -> np.ndarray:
    """(n,) what each plan's last step has in common with the first plan's (`prediction_errors.DIFFERENCES`)."""
    members, actions = plans.members, plans.actions
    same = (members == members[:1]).all(axis=1) & (actions[:, :-1] == actions[:1, :-1]).all(axis=1)
    shared = np.isin(members, members[0]).any(axis=1)
    return np.where(same, "same_pair", np.where(shared, "shared_checkpoint", "no_shared_checkpoint"))


def _over_steps(scorer: Scorer, values: np.ndarray) -> np.ndarray:
    """(T, n) from (T, n, k − 1)."""
    if scorer.aggregate == "last":
        return np.asarray(values[..., -1])
    return np.asarray(values.mean(axis=-1) if scorer.aggregate == "mean" else values.sum(axis=-1))


def _over_tasks(scorer: Scorer, value: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) ends of the interval of the target utility from (T, n) utilities and half-widths."""
    return scorer.target.over(value - half), scorer.target.over(value + half)


def _difference_over_tasks(
    scorer: Scorer, value: np.ndarray, half: np.ndarray, each: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) ends of the interval of the first plan's lead; minₜ uₜ − minₜ vₜ lies between minₜ and maxₜ of uₜ − vₜ."""
    if scorer.target.combine != "min":
        return _over_tasks(scorer, value, half)
    low, high = each
    return (
        np.maximum((value - half).min(axis=0), low[0] - high),
        np.minimum((value + half).max(axis=0), high[0] - low),
    )
