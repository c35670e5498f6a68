"""Order of plans: by utility, equal ones by their ids; and which of two equal orders is listed."""

from __future__ import annotations

import numpy as np

from simmerge_core.planning.scoring import Prefixes, Scorer


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
