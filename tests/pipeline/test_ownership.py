"""Arrival-order ownership: no pair is lost and none is read twice, whatever the order, failures and concurrency."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from simmerge_pipeline.checks import missing_pairs
from simmerge_pipeline.ownership import owned_others

NAMES = [f"c{i}" for i in range(7)]


def held(partitions: dict[str, list[str]]) -> set[tuple[str, str]]:
    return {(owner, other) for owner, others in partitions.items() for other in others}


@st.composite
def histories(draw: st.DrawFn) -> list[list[tuple[list[str], set[str]]]]:
    """Rounds of runs at once; each run serves some checkpoints in some order, and some of them fail."""
    rounds = []
    for _ in range(draw(st.integers(1, 8))):
        runs = []
        for _ in range(draw(st.integers(1, 3))):
            keys = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=5))
            runs.append((keys, draw(st.sets(st.sampled_from(keys)))))
        rounds.append(runs)
    return rounds


@given(histories())
def test_every_pair_of_finished_checkpoints_is_held_once_the_failed_ones_are_repeated(
    rounds: list[list[tuple[list[str], set[str]]]],
) -> None:
    present: set[str] = set()
    partitions: dict[str, list[str]] = {}
    wanted: set[str] = set()
    for runs in rounds:
        present |= {key for keys, _ in runs for key in keys}  # their inputs arrive
        before = held(partitions)  # runs at once do not see each other's partitions
        written: dict[str, list[str]] = {}
        for keys, failing in runs:
            wanted |= set(keys)
            for number, key in enumerate(keys):
                others = owned_others(key, present=present, held=before, later=set(keys[number + 1 :]))
                if key not in failing:
                    written[key] = others
                    wanted.discard(key)
                else:
                    wanted.add(key)
        partitions.update(written)
    # The failed ones are backfilled one by one, in another order than they came.
    for key in sorted(wanted, reverse=True):
        partitions[key] = owned_others(key, present=present, held=held(partitions), later=set())
    for a, b in combinations(sorted(present), 2):
        assert (a, b) in held(partitions) or (b, a) in held(partitions), (a, b)
    assert not any(missing_pairs(c, present, held(partitions)) for c in present)
    # A reader that takes each unordered pair once sees each pair once.
    once = {frozenset(pair) for pair in held(partitions)}
    assert len(once) == len(present) * (len(present) - 1) // 2


@given(st.permutations(NAMES))
def test_one_after_the_other_no_pair_is_held_twice_and_no_earlier_partition_changes(order: list[str]) -> None:
    partitions: dict[str, list[str]] = {}
    for number, key in enumerate(order):
        before = {owner: list(others) for owner, others in partitions.items()}
        partitions[key] = owned_others(key, present=order[: number + 1], held=held(partitions), later=set())
        assert set(partitions[key]) == set(order[:number])
        assert {owner: others for owner, others in partitions.items() if owner != key} == before
    assert len(held(partitions)) == len(NAMES) * (len(NAMES) - 1) // 2


@given(st.permutations(NAMES))
def test_one_run_over_all_shares_the_pairs_without_overlap(order: list[str]) -> None:
    partitions: dict[str, list[str]] = {}
    for number, key in enumerate(order):
        later = set(order[number + 1 :])
        partitions[key] = owned_others(key, present=NAMES, held=held(partitions), later=later)
    assert len(held(partitions)) == len(NAMES) * (len(NAMES) - 1) // 2
    again = {
        key: owned_others(key, present=NAMES, held=held(partitions), later=set(order[number + 1 :]))
        for number, key in enumerate(order)
    }
    assert again == partitions


def test_two_partitions_that_hold_a_pair_both_keep_it() -> None:
    both = {("a", "b"), ("b", "a")}
    assert owned_others("a", present=["a", "b"], held=both, later=set()) == ["b"]
    assert owned_others("b", present=["a", "b"], held=both, later=set()) == ["a"]
