"""How many pairs a checkpoint may add to the labelled ones, and which."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simmerge_core.labels import within_budget

PAIRS = [(f"a{i}", f"b{j}") for i in range(4) for j in range(3)]
SETS = st.sets(st.sampled_from(PAIRS))


@given(SETS, SETS, st.integers(1, 12))
def test_what_is_labelled_stays_and_the_rest_is_bounded(
    pairs: set[tuple[str, str]], labelled: set[tuple[str, str]], budget: int
) -> None:
    chosen = within_budget(pairs, labelled, budget=budget, salt="s")
    assert pairs & labelled <= chosen <= pairs
    assert len(chosen) == max(len(pairs & labelled), min(len(pairs), budget))
    assert within_budget(pairs, chosen, budget=budget, salt="s") == chosen  # done again, nothing is added
    assert within_budget(pairs, labelled, budget=None, salt="s") == pairs


@given(SETS, st.integers(1, 11))
def test_a_larger_budget_adds_to_a_smaller_one(pairs: set[tuple[str, str]], budget: int) -> None:
    smaller = within_budget(pairs, set(), budget=budget, salt="s")
    assert smaller <= within_budget(pairs, set(), budget=budget + 1, salt="s")


def test_another_salt_draws_others() -> None:
    drawn = {frozenset(within_budget(PAIRS, set(), budget=3, salt=salt)) for salt in "abcdefgh"}
    assert len(drawn) > 1
