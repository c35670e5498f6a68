"""A merge labels both orientations."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from simmerge_core.labels import mirrored
from simmerge_core.operators.actions import parse_action

ACTIONS = ("linear@0.5", "slerp@0.3", "slerp@0.7", "ties@0.5,tau=0.01", "linear@0.1")


def labels(rows: list[tuple[str, str, str]]) -> pl.DataFrame:
    table = [
        (a, b, action, parse_action(action).alpha, f"hash-{a}", f"hash-{b}", "math", "A", float(i))
        for i, (a, b, action) in enumerate(rows)
    ]
    names = ["a", "b", "action", "alpha", "a_fingerprint", "b_fingerprint", "task", "item_set", "utility"]
    return pl.DataFrame(table, schema=names, orient="row")


def test_rows_are_turned() -> None:
    both = mirrored(labels([("x", "y", "slerp@0.3")]))
    assert both.rows() == [
        ("x", "y", "slerp@0.3", 0.3, "hash-x", "hash-y", "math", "A", 0.0),
        ("y", "x", "slerp@0.7", 0.7, "hash-y", "hash-x", "math", "A", 0.0),
    ]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("def"), st.sampled_from(ACTIONS)), unique=True))
def test_doubling_once_is_enough(rows: list[tuple[str, str, str]]) -> None:
    given_rows = labels(rows)
    both = mirrored(given_rows)
    assert both.head(len(rows)).equals(given_rows)
    assert both.height == 2 * len(rows)
    assert mirrored(both).equals(both)
    for row in both.iter_rows(named=True):
        assert row["alpha"] == parse_action(row["action"]).alpha
        assert (row["a_fingerprint"], row["b_fingerprint"]) == (f"hash-{row['a']}", f"hash-{row['b']}")


def test_measured_rows_win() -> None:
    both = mirrored(labels([("x", "y", "slerp@0.3"), ("y", "x", "slerp@0.7")]))
    assert both["utility"].to_list() == [0.0, 1.0]


def test_no_rows() -> None:
    assert mirrored(labels([("x", "y", "linear@0.5")]).clear()).is_empty()
