"""Ranges and rectangles hold exactly the keys they were made of."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from simmerge_pipeline.partitions import Cell
from simmerge_pipeline.ranges import ranges, rectangles

CHECKPOINTS = [f"c{i}" for i in range(6)]
TASKS = ["math", "code", "rag"]


def keys_of(start: str, end: str, order: list[str]) -> list[str]:
    return order[order.index(start) : order.index(end) + 1]


@given(st.sets(st.sampled_from(CHECKPOINTS)))
def test_ranges_hold_exactly_the_keys(keys: set[str]) -> None:
    found = [key for start, end in ranges(keys, CHECKPOINTS) for key in keys_of(start, end, CHECKPOINTS)]
    assert sorted(found) == sorted(keys)


@given(st.sets(st.sampled_from([Cell(c, t) for c, t in product(CHECKPOINTS, TASKS)])))
def test_rectangles_hold_exactly_the_cells(cells: set[Cell]) -> None:
    found = [
        Cell(c, t)
        for first, last in rectangles(cells, CHECKPOINTS, TASKS)
        for c in keys_of(first.checkpoint, last.checkpoint, CHECKPOINTS)
        for t in keys_of(first.task, last.task, TASKS)
    ]
    assert sorted(found) == sorted(cells)


def test_everything_is_one_rectangle() -> None:
    cells = [Cell(c, t) for c, t in product(CHECKPOINTS, TASKS)]
    assert rectangles(cells, CHECKPOINTS, TASKS) == [(Cell("c0", "math"), Cell("c5", "rag"))]
