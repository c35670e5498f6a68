"""Partition keys as ranges, since a run serves one range: a start and an end, in registration order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simmerge_pipeline.partitions import Cell


def ranges(keys: Iterable[str], order: Sequence[str]) -> list[tuple[str, str]]:
    """The fewest (first, last) ranges of `order` that hold exactly `keys`."""
    wanted, found, start = set(keys), [], None
    for number, key in enumerate(order):
        if key in wanted and start is None:
            start = key
        if start is not None and (number + 1 == len(order) or order[number + 1] not in wanted):
            found.append((start, key))
            start = None
    return found


def rectangles(cells: Iterable[Cell], checkpoints: Sequence[str], tasks: Sequence[str]) -> list[tuple[Cell, Cell]]:
    """Rectangles (first corner, last corner) of checkpoints × tasks that hold exactly `cells`.

    A range of multi-partition keys is the product of a range of each dimension. Checkpoints that want the same tasks
    share a rectangle where they stand beside each other.
    """
    wanted: dict[str, set[str]] = {}
    for checkpoint, task in cells:
        wanted.setdefault(checkpoint, set()).add(task)
    found = []
    for kind in dict.fromkeys(frozenset(wanted[c]) for c in checkpoints if c in wanted):
        alike = [c for c in checkpoints if wanted.get(c) == kind]
        for first_task, last_task in ranges(kind, tasks):
            for first, last in ranges(alike, checkpoints):
                found.append((Cell(first, first_task), Cell(last, last_task)))
    return found
