"""Merging for the worse of two tasks: choose by the least GapClosed over both parents' tasks, and be judged by it.

GapClosed needs the parents' own scores. Those are N × T evaluations that a catalog has anyway, no merges: the decision
reads them on the items it may choose from, the selector's features do not contain them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simmerge_core.analysis.bootstrap import cluster_weights, interval, ratio_of_means, weighted_mean
from simmerge_core.analysis.pairwise import clusters_of, method_name
from simmerge_core.analysis.protocol import TIE, TRAINING_SPLITS, Direction, tied_best
from simmerge_core.analysis.units import Units
from simmerge_core.metrics import gap_closed

if TYPE_CHECKING:
    from simmerge_core.experiments.data import ExperimentData


def least_gap(units: Units, values: np.ndarray, item_set: str, *, min_gap: float) -> np.ndarray:
    """Least GapClosed over the parts, (n, p, m) utilities → (n, m) percent; NaN where the guard leaves out a part."""
    expert, auxiliary = units.expert[item_set][..., None], units.auxiliary[item_set][..., None]
    return np.asarray(gap_closed(values, expert, auxiliary, min_gap=min_gap)).min(axis=1)


@dataclass(frozen=True, slots=True)
class MinimumValues:
    """MIN-GapClosed of every method on r rows (units × directions), percent.

    Attributes
    ----------
    values
        By method, (r,): each model's choices, the best fixed action for it, every action, random, the honest oracle,
        the base and the better parent.
    models
        The methods that are models.
    clusters
        Checkpoints of each row, as `bootstrap.cluster_weights` takes them.
    """

    values: Mapping[str, np.ndarray]
    models: tuple[str, ...]
    clusters: np.ndarray


def minimum_values(
    units: Units,
    parts: Mapping[str, Mapping[Direction, np.ndarray]],
    *,
    split: str,
    along: Sequence[Direction],
    min_gap: float,
) -> MinimumValues:
    """Choose for the worse task and be judged by it.

    A unit takes part where both tasks pass the guard on both item sets of a direction.
    """
    found: dict[str, list[np.ndarray]] = {}
    clusters = []
    training = np.isin(units.split, TRAINING_SPLITS)
    for direction in along:
        seen, scored = (
            least_gap(units, units.utilities[s], s, min_gap=min_gap) for s in (direction.chosen_on, direction.scored_on)
        )
        usable = np.isfinite(seen).all(axis=1) & np.isfinite(scored).all(axis=1)
        test = np.flatnonzero((units.split == split) & usable)
        means = seen[training & usable].mean(axis=0)
        fixed = int(np.argmax(means >= means.max() - TIE))
        rows = np.arange(len(test))
        clusters.append(clusters_of(units)[test])
        for name, by in parts.items():
            predicted = least_gap(units, by[direction], direction.chosen_on, min_gap=min_gap)[test]
            found.setdefault(name, []).append(scored[test][rows, predicted.argmax(axis=1)])
        found.setdefault("best_fixed", []).append(scored[test, fixed])
        found.setdefault("oracle", []).append((tied_best(seen[test]) * scored[test]).sum(axis=1))
        found.setdefault("random", []).append(scored[test].mean(axis=1))
        for name, scores in _unmerged(units, direction).items():
            found.setdefault(name, []).append(least_gap(units, scores, direction.scored_on, min_gap=min_gap)[test, 0])
        for number, action in enumerate(units.actions):
            found.setdefault(method_name(action), []).append(scored[test, number])
    values = {name: np.concatenate(pieces) for name, pieces in found.items()}
    return MinimumValues(values, tuple(parts), np.concatenate(clusters))


def _unmerged(units: Units, direction: Direction) -> dict[str, np.ndarray]:
    """Utilities (n, p, 1) on the scored items of what needs no merge: the base, and the better parent."""

    def parent(item_set: str, first: bool) -> np.ndarray:
        # Part 0 is a's own task, where a is the expert; part 1 is b's.
        own = (np.arange(units.tasks.shape[1]) == 0) == first
        return np.where(own, units.expert[item_set], units.auxiliary[item_set])

    seen = [parent(direction.chosen_on, first).mean(axis=1) for first in (True, False)]
    scored = [parent(direction.scored_on, first) for first in (True, False)]
    better = np.where((seen[0] >= seen[1])[:, None], scored[0], scored[1])
    return {"keep_better_parent": better[..., None], "base": units.base[direction.scored_on][..., None]}


def minimum_figures(data: ExperimentData, found: Sequence[MinimumValues]) -> dict[str, Any]:
    """MIN-GapClosed of every method over all rows of one or several splits, with intervals."""
    first, noise = found[0], data.protocol.noise
    values = {name: np.concatenate([f.values[name] for f in found]) for name in first.values}
    weights = cluster_weights(np.concatenate([f.clusters for f in found]), draws=noise.draws, seed=noise.seed)
    base = values["best_fixed"]
    return {
        "rows": len(base),
        "min_gap_closed": {name: interval(weighted_mean(v), weights).as_dict() for name, v in values.items()},
        "points_over_best_fixed": {
            name: interval(weighted_mean(values[name] - base), weights).as_dict() for name in (*first.models, "oracle")
        },
        "captured": {
            name: interval(ratio_of_means(values[name] - base, values["oracle"] - base), weights).as_dict()
            for name in first.models
        },
    }
