"""Beam search for pools whose plans are too many to list.

A prefix says little about the plan it becomes: under the aggregate ``last`` the best plans append the expert at the
end, and their prefixes, which lack it, predict badly. So the beam holds whole plans: it starts from all pairs, grows a
plan by inserting a checkpoint at any position, and finally exchanges single checkpoints and positions as long as that
helps.
"""

from __future__ import annotations

import numpy as np

from simmerge_core.planning.exhaustive import first_pair_in_order, joined, ranked
from simmerge_core.planning.pool import Pool
from simmerge_core.planning.scoring import Prefixes, Scorer, singles

_ROWS = 32_768
_ROUNDS = 6  # of exchanges at most


def beam_search(scorer: Scorer, pool: Pool, *, top: int, width: int, joint: bool = False) -> Prefixes:
    """The `top` best plans found, best first."""
    n = len(pool)
    pairs = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), axis=-1).reshape(-1, 2)
    beam = _scored(scorer, pool, pairs[pairs[:, 0] != pairs[:, 1]], joint=joint)
    beam = ranked(scorer, beam, max(width, top if pool.k == 2 else 0))
    for _ in range(2, pool.k):
        beam = ranked(scorer, _scored(scorer, pool, _insertions(beam.members, n), joint=joint), max(width, top))
    if pool.k > 2:
        beam = _improved(scorer, pool, beam, max(width, top), joint=joint)
    return ranked(scorer, beam, top)


def _improved(scorer: Scorer, pool: Pool, beam: Prefixes, width: int, *, joint: bool) -> Prefixes:
    seen = {tuple(order) for order in beam.members.tolist()}
    frontier = beam.take(np.arange(min(len(beam), -(-width // 4))))  # the best quarter is worth polishing
    for _ in range(_ROUNDS):
        orders = _canonical(scorer, pool, _exchanges(frontier.members, len(pool)))
        new = np.array([order for order in orders.tolist() if tuple(order) not in seen], dtype=np.int64)
        if not len(new):
            break
        seen.update(map(tuple, new.tolist()))
        floor = scorer.plan_utility(beam).min()
        found = _scored(scorer, pool, new, joint=joint)
        beam = ranked(scorer, joined([beam, found]), width)
        fresh = {tuple(order) for order in found.members[scorer.plan_utility(found) >= floor].tolist()}
        kept = np.array([tuple(order) in fresh for order in beam.members.tolist()])
        if not kept.any():
            break
        frontier = beam.take(kept)
    return beam


def _scored(scorer: Scorer, pool: Pool, orders: np.ndarray, *, joint: bool) -> Prefixes:
    """Score orders (n, j), those that can be or become plans; each once."""
    orders = _canonical(scorer, pool, orders)
    parts = []
    for start in range(0, len(orders), _ROWS):
        chunk = orders[start : start + _ROWS]
        plans = singles(chunk[:, 0])
        index = np.arange(len(chunk))
        for column in range(1, chunk.shape[1]):
            plans = scorer.extend(plans, chunk[index, column], joint=joint)
            index = np.tile(index, len(plans) // len(index))
        parts.append(plans)
    return joined(parts)


def _canonical(scorer: Scorer, pool: Pool, orders: np.ndarray) -> np.ndarray:
    if scorer.symmetric:
        wrong = ~first_pair_in_order(scorer, orders)
        orders = orders.copy()
        orders[wrong, :2] = orders[wrong, 1::-1] if orders.shape[1] == 2 else orders[wrong][:, [1, 0]]
    return np.unique(orders[pool.extensible(orders)], axis=0)


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
