"""Counting and pruning of sets against listing them; baseline plans."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import parse_action
from simmerge_core.planning import expert_last_best_fixed, random_order
from simmerge_core.planning.pool import pool_of

NAMES = ("math", "code", "rag")


@given(
    st.lists(st.sampled_from(NAMES), min_size=3, max_size=7),
    st.integers(2, 4),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True),
    st.booleans(),
    st.sets(st.integers(0, 6), max_size=2),
)
def test_counts_and_pruning_equal_a_list_of_all_sets(
    domains: list[str], k: int, tasks: list[str], one_per_domain: bool, required: set[int]
) -> None:
    ids = [f"m{i}" for i in range(len(domains))]
    require = [ids[i] for i in required if i < len(ids)]
    if k > len(ids):
        return
    experts = [t for t in tasks if t in domains]
    experts = experts if len(experts) <= k else []

    def fits(subset: tuple[int, ...]) -> bool:
        held = [domains[i] for i in subset]
        return (
            all(held.count(t) == 1 for t in experts)
            and (not one_per_domain or len(set(held)) == k)
            and {ids[i] for i in subset} >= set(require)
        )

    expected = [s for s in combinations(range(len(ids)), k) if fits(s)]
    if not expected:
        with pytest.raises(SelectionError):
            pool_of(ids, domains, tasks=tasks, k=k, require=require, one_per_domain=one_per_domain)
        return
    pool = pool_of(ids, domains, tasks=tasks, k=k, require=require, one_per_domain=one_per_domain)
    assert pool.subsets() == len(expected)
    orders = np.array(list(permutations(range(len(ids)), k)))
    kept = {tuple(sorted(order)) for order in orders[pool.extensible(orders)].tolist()}
    assert kept == set(expected)
    # No prefix of a plan is ever pruned.
    for order in expected:
        for size in range(1, k):
            assert pool.extensible(np.array([order[:size]])).all()
            assert pool.completions(np.array(order[:size])) > 0
    # What can follow a prefix is what makes a prefix again.
    for size in range(1, k):
        prefixes = np.array(list(permutations(range(len(ids)), size)))
        prefixes = prefixes[pool.extensible(prefixes)]
        following = pool.appendable(prefixes)
        for prefix, row in zip(prefixes.tolist(), following, strict=True):
            fresh = [c for c in range(len(ids)) if c not in prefix]
            longer = pool.extensible(np.array([[*prefix, c] for c in fresh]))
            assert set(np.flatnonzero(row)) == {c for c, fine in zip(fresh, longer, strict=True) if fine}


def test_baseline_plans() -> None:
    domains = {"m1": "math", "m2": "math", "c1": "code", "c2": "code", "r1": "rag"}
    action = parse_action("linear")
    for seed in range(8):
        last = expert_last_best_fixed(list(domains), domains, "math", k=3, action=action, seed=seed)
        drawn = random_order(list(domains), domains, "math", k=3, action=action, seed=seed)
        assert domains[last.checkpoints[-1]] == "math"
        assert sorted(last.checkpoints) == sorted(drawn.checkpoints)
        assert sorted(domains[c] for c in drawn.checkpoints) == ["code", "math", "rag"]
        assert last.actions == drawn.actions == (action, action)
    assert (
        len({random_order(list(domains), domains, "math", k=3, action=action, seed=s).checkpoints for s in range(8)})
        > 3
    )
    whole = expert_last_best_fixed(["r1", "m1", "c1"], domains, "math", action=action)
    assert whole.k == 3
    with pytest.raises(SelectionError, match="ghost"):
        random_order(["ghost", "m1"], domains, "math", k=2, action=action)
