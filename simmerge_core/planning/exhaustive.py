"""Exhaustive search: every order, level by level, so that plans share the steps they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from simmerge_core.planning.pool import Pool
from simmerge_core.planning.scoring import Prefixes, Scorer, singles

_ROWS = 32_768  # steps scored at once: bounds memory at rows × features and members × rows × width


def exhaustive_search(
    scorer: Scorer,
    pool: Pool,
    *,
    top: int,
    joint: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Prefixes:
    """The `top` best plans among all, best first."""
    prefixes = singles(np.arange(len(pool)))
    prefixes = prefixes.take(pool.extensible(prefixes.members))
    for size in range(2, pool.k):
        prefixes = joined([scorer.extend(p, c, joint=joint) for p, c in _extensions(scorer, pool, prefixes, size)])
    best: Prefixes | None = None
    done = 0
    for part, added in _extensions(scorer, pool, prefixes, pool.k):
        plans = scorer.extend(part, added, joint=joint)
        best = ranked(scorer, plans if best is None else joined([best, plans]), top)
        if progress is not None:
            done += len(np.unique(part.members, axis=0))
            progress(min(1.0, done / len(prefixes)))
    assert best is not None
    return best


def _extensions(scorer: Scorer, pool: Pool, prefixes: Prefixes, size: int) -> Iterator[tuple[Prefixes, np.ndarray]]:
    """Prefixes with the checkpoint to append, chunk by chunk; only those that can still become plans."""
    candidates = len(pool)
    chunk = max(1, _ROWS // candidates)
    for start in range(0, len(prefixes), chunk):
        part = prefixes.take(np.arange(start, min(start + chunk, len(prefixes))))
        row = np.repeat(np.arange(len(part)), candidates)
        added = np.tile(np.arange(candidates), len(part))
        fresh = ~(part.members[row] == added[:, None]).any(axis=1)
        row, added = row[fresh], added[fresh]
        members = np.concatenate([part.members[row], added[:, None]], axis=1)
        keep = pool.extensible(members)
        if size == 2 and scorer.symmetric:
            keep &= first_pair_in_order(scorer, members)
        if keep.any():
            yield part.take(row[keep]), added[keep]


def first_pair_in_order(scorer: Scorer, members: np.ndarray) -> np.ndarray:
    """(n,) bool: whether the interchangeable first two stand in the listed order: target experts first, then by id."""
    experts = scorer.expert_rank()
    first, second = members[:, 0], members[:, 1]
    return (experts[first] < experts[second]) | ((experts[first] == experts[second]) & (first < second))


def ranked(scorer: Scorer, plans: Prefixes, top: int) -> Prefixes:
    """The `top` plans by utility; equal ones by the order of their ids, then actions."""
    keys = [*plans.actions.T[::-1], *plans.members.T[::-1], -np.round(scorer.plan_utility(plans), 12)]
    return plans.take(np.lexsort(keys)[:top])


def joined(parts: list[Prefixes]) -> Prefixes:
    """Prefixes of one size, one after the other."""
    return Prefixes(
        np.concatenate([p.members for p in parts]),
        np.concatenate([p.weights for p in parts]),
        np.concatenate([p.actions for p in parts]),
        np.concatenate([p.utilities for p in parts]),
    )
