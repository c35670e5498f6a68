"""Merge and evaluate with a budget: what trying 1, 2 or 5 merges is worth, against predicting."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis.bootstrap import cluster_weights, interval, weighted_mean
from simmerge_core.analysis.pairwise import clusters_of
from simmerge_core.analysis.protocol import TRAINING_SPLITS, best_fixed
from simmerge_core.analysis.units import Target
from simmerge_core.experiments.comparison import SIMMERGE, predictions
from simmerge_core.experiments.data import Progress
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.protocol import protocol
from simmerge_core.experiments.result import Result
from simmerge_core.operators.actions import ACTION_SETS

SETS: dict[str, Target] = protocol().actions.targets


def best_of_drawn(seen: np.ndarray, scored: np.ndarray, budget: int) -> np.ndarray:
    """Expected score of the best of `budget` actions drawn without replacement, (n, m) twice → (n,), exactly.

    The i-th best of m on the seen items is the best of the draw with probability C(m − i, budget − 1) / C(m, budget);
    of equal ones the first in order counts as better.
    """
    m = seen.shape[1]
    budget = min(budget, m)
    order = np.argsort(-seen, axis=1, kind="stable")
    weights = np.array([comb(m - 1 - i, budget - 1) for i in range(m)], dtype=np.float64) / comb(m, budget)
    return np.asarray(np.take_along_axis(scored, order, axis=1) @ weights)


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """Random merges, merges in the order of their training mean, and merges in the selector's order."""
    data = catalogs.full
    noise = data.protocol.noise
    figures: dict[str, Any] = {}
    frames = []
    known = {name: target for name, target in SETS.items() if name in (*ACTION_SETS, *data.catalog.action_sets)}
    for number, (name, target) in enumerate(known.items()):
        progress(name, number / len(known))
        units = data.units(name, target)
        rows = {d: data.rows(units.actions, d) for d in data.along}
        predicted = predictions(data, units, rows, [SIMMERGE])[SIMMERGE]
        test = np.flatnonzero(units.split == "test")
        training = np.isin(units.split, TRAINING_SPLITS)
        values: dict[str, list[np.ndarray]] = {}
        for d in data.along:
            seen, scored = (units.utilities[s][test].mean(axis=1) for s in (d.chosen_on, d.scored_on))
            order = predicted[d][test].mean(axis=1).argsort(axis=1, kind="stable")[:, ::-1]
            usual = np.argsort(-units.utilities[d.chosen_on][training].mean(axis=(0, 1)), kind="stable")
            each = np.arange(len(test))
            values.setdefault("predict, evaluate none", []).append(scored[each, order[:, 0]])
            values.setdefault("best fixed, evaluate none", []).append(scored[:, best_fixed(units, d.chosen_on)])
            for budget in data.protocol.budgets:
                if budget > len(units.actions):
                    continue
                values.setdefault(f"random, evaluate {budget}", []).append(best_of_drawn(seen, scored, budget))
                for label, first in (
                    ("best on average, evaluate", np.tile(usual[:budget], (len(test), 1))),
                    ("predicted best, evaluate", order[:, :budget]),
                ):
                    best = first[each, np.take_along_axis(seen, first, axis=1).argmax(axis=1)]
                    values.setdefault(f"{label} {budget}", []).append(scored[each, best])
        joined = {method: np.concatenate(parts) for method, parts in values.items()}
        clusters = np.concatenate([clusters_of(units)[test]] * len(data.along))
        weights = cluster_weights(clusters, draws=noise.draws, seed=noise.seed)
        mine = joined["predict, evaluate none"]
        figures[name] = {
            "actions": len(units.actions),
            "utility": {m: interval(weighted_mean(v), weights).as_dict() for m, v in joined.items()},
            "gain_of_predicting": {m: interval(weighted_mean(mine - v), weights).as_dict() for m, v in joined.items()},
        }
        frames += [
            pl.DataFrame(
                {
                    "actions": [name] * len(v),
                    "direction": [str(d) for d in data.along for _ in test],
                    "a": np.tile(units.a[test], len(data.along)),
                    "b": np.tile(units.b[test], len(data.along)),
                    "method": [m] * len(v),
                    "utility": v.astype(np.float32),
                }
            )
            for m, v in joined.items()
        ]
    return Result(pl.concat(frames), figures)
