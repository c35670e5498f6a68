"""Beam search for pools whose plans are too many to list.

A prefix says little about the plan it becomes: under the aggregate ``last`` the best plans append the expert at the
end, and their prefixes, which lack it, predict badly. So the beam holds whole plans: it starts from all pairs, grows a
plan by inserting a checkpoint at any position, and finally exchanges single checkpoints and positions as long as that
helps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simmerge_core.planning.estimate import Estimator
from simmerge_core.planning.pool import Pool
from simmerge_core.planning.ranking import first_pair_in_order, joined, ranked
from simmerge_core.planning.scoring import Prefixes, Scorer, singles

_ROWS = 32_768
_ROUNDS = 6  # of exchanges at most
_SCREENED = 2  # orders scored exactly, per plan that the beam can hold


def beam_search(
    scorer: Scorer,
    pool: Pool,
    *,
    top: int,
    width: int,
    joint: bool = False,
    estimator: Estimator | None = None,
) -> Prefixes:
    """The `top` best plans found, best first.

    Parameters
    ----------
    width
        Plans that the beam holds.
    joint
        Whether all sequences of actions compete; see `Scorer.extend`.
    estimator
        Of the scorer's steps; with one, only the most promising orders by its answer are scored exactly.
    """
    n = len(pool)
    orders = _Orders(scorer, pool, estimator, joint)
    pairs = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), axis=-1).reshape(-1, 2)
    beam = orders.best(orders.listed(pairs[pairs[:, 0] != pairs[:, 1]]), max(width, top if pool.k == 2 else 0))
    for _ in range(2, pool.k):
        beam = orders.best(orders.listed(_insertions(beam.members, n)), max(width, top))
    if pool.k > 2:
        beam = _improved(orders, beam, max(width, top))
    return ranked(scorer, beam, top)


def _improved(orders: _Orders, beam: Prefixes, width: int) -> Prefixes:
    scorer, n = orders.scorer, len(orders.pool)
    seen = {tuple(order) for order in beam.members.tolist()}
    frontier = beam.take(np.arange(min(len(beam), -(-width // 4))))  # the best quarter is worth polishing
    for _ in range(_ROUNDS):
        listed = orders.listed(_exchanges(frontier.members, n))
        new = np.array([order for order in listed.tolist() if tuple(order) not in seen], dtype=np.int64)
        if not len(new):
            break
        seen.update(map(tuple, new.tolist()))
        floor = scorer.plan_utility(beam).min()
        found = orders.best(new, width)
        beam = ranked(scorer, joined([beam, found]), width)
        fresh = {tuple(order) for order in found.members[scorer.plan_utility(found) >= floor].tolist()}
        kept = np.array([tuple(order) in fresh for order in beam.members.tolist()])
        if not kept.any():
            break
        frontier = beam.take(kept)
    return beam


@dataclass(frozen=True, slots=True)
class _Orders:
    """Scores many orders of one size."""

    scorer: Scorer
    pool: Pool
    estimator: Estimator | None
    joint: bool

    def listed(self, orders: np.ndarray) -> np.ndarray:
        """(n, j), those of (m, j) orders that can be or become plans, sorted, each once."""
        if self.scorer.symmetric:
            wrong = ~first_pair_in_order(self.scorer, orders)
            orders = orders.copy()
            orders[wrong, :2] = orders[wrong, 1::-1] if orders.shape[1] == 2 else orders[wrong][:, [1, 0]]
        orders = orders[self.pool.extensible(orders)]
        n, size = len(self.pool), orders.shape[1]
        if size * math.log2(n) >= 63:
            return np.unique(orders, axis=0)
        places = n ** np.arange(size - 1, -1, -1)  # an order as one number of base n: sorting rows is much slower
        return np.unique(orders @ places)[:, None] // places % n

    def best(self, orders: np.ndarray, count: int) -> Prefixes:
        """The `count` best of the plans (with `joint`, of all their actions) that (n, j) sorted orders make."""
        exact = _SCREENED * count
        if self.estimator is not None and len(orders) > exact:
            utilities = np.full(len(orders), -np.inf)
            for start in range(0, len(orders), _ROWS):
                part = orders[start : start + _ROWS]
                plans = _chained(self.estimator, part, joint=self.joint)
                utilities[start : start + _ROWS] = self.scorer.plan_utility(plans).reshape(-1, len(part)).max(axis=0)
            orders = orders[np.sort(np.argsort(-utilities, kind="stable")[:exact])]
        parts = [orders[start : start + _ROWS] for start in range(0, len(orders), _ROWS)]
        return ranked(self.scorer, joined([_chained(self.scorer, part, joint=self.joint) for part in parts]), count)


def _chained(scorer: Scorer, orders: np.ndarray, *, joint: bool) -> Prefixes:
    """Plans of (n, j) sorted orders, in their order; steps that orders share are scored once.

    With `joint` there are several plans per order: the first of all orders, the second of all orders, and so on.
    """
    n, size = orders.shape
    plans = singles(orders[:0, 0])
    run = np.zeros(n, dtype=np.int64)  # which prefix an order has, among the distinct ones of this size
    for column in range(size):
        changes = np.ones(n, dtype=bool)
        changes[1:] = (orders[1:, : column + 1] != orders[:-1, : column + 1]).any(axis=1)
        first = np.flatnonzero(changes)
        if column == 0:
            plans = singles(orders[first, 0])
        else:
            prefixes = int(run[-1]) + 1
            copies = len(plans) // prefixes
            parents = (np.arange(copies)[:, None] * prefixes + run[first]).reshape(-1)
            plans = scorer.extend(plans.take(parents), np.tile(orders[first, column], copies), joint=joint)
        run = np.cumsum(changes) - 1
    return plans


def _insertions(orders: np.ndarray, n: int) -> np.ndarray:
    """Every order with every further checkpoint at every position."""
    count, size = orders.shape
    row = np.repeat(np.arange(count), n)
    added = np.tile(np.arange(n), count)
    fresh = ~(orders[row] == added[:, None]).any(axis=1)
    base, added = orders[row[fresh]], added[fresh]
    return np.concatenate(
        [np.concatenate([base[:, :at], added[:, None], base[:, at:]], axis=1) for at in range(size + 1)]
    )


def _exchanges(orders: np.ndarray, n: int) -> np.ndarray:
    """Every order with one checkpoint replaced, or two positions swapped."""
    count, size = orders.shape
    out = []
    row = np.repeat(np.arange(count), n)
    added = np.tile(np.arange(n), count)
    fresh = ~(orders[row] == added[:, None]).any(axis=1)
    for at in range(size):
        changed = orders[row[fresh]].copy()
        changed[:, at] = added[fresh]
        out.append(changed)
    for first in range(size):
        for second in range(first + 1, size):
            swapped = orders.copy()
            swapped[:, [first, second]] = orders[:, [second, first]]
            out.append(swapped)
    return np.concatenate(out)
