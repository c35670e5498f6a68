"""A merge request is planned with the checkpoints whose features are all there."""

from __future__ import annotations

from itertools import permutations

import polars as pl
import pytest

from simmerge_pipeline.requests import comparable

POOL = ["a", "b", "c", "d"]


def features(*missing: tuple[str, str, str]) -> pl.DataFrame:
    rows = [(x, y, t) for x, y in permutations(POOL, 2) for t in ("math", "code") if (x, y, t) not in missing]
    return pl.DataFrame(rows, schema=["a", "b", "task"], orient="row")


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        ([], POOL),
        ([("a", "b", "math")], ["a", "c", "d"]),  # of two alike, the one that was declared later
        ([("d", "a", "code")], ["a", "b", "c"]),
        ([("a", "b", "math"), ("a", "c", "math")], ["b", "c", "d"]),  # the one at fault, not those it is missing with
        ([(x, "c", "code") for x in "abd"], ["a", "b", "d"]),
    ],
)
def test_the_fewest_are_left_out(missing: list[tuple[str, str, str]], left: list[str]) -> None:
    assert comparable(features(*missing), POOL, ["math", "code"]) == left


def test_a_task_that_is_not_asked_for_leaves_nobody_out() -> None:
    assert comparable(features(("a", "b", "math")), POOL, ["code"]) == POOL


def test_without_any_features_one_is_left_and_the_search_says_that_k_does_not_fit() -> None:
    assert comparable(features().clear(), POOL, ["math"]) == ["a"]
