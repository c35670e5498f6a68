"""Order, bound and errors of work on threads."""

from __future__ import annotations

import threading
import time

import pytest

from simmerge_core.planning.parallel import cores, ordered_map


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_parts(threads: int) -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.002 * (number % 3 == 0))
        return number * number

    assert list(ordered_map(slow_first, range(30), threads=threads)) == [n * n for n in range(30)]
    assert list(ordered_map(slow_first, [], threads=threads)) == []


def test_what_is_not_read_does_not_pile_up() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def note(number: int) -> int:
        with lock:
            begun.append(number)
        return number

    results = ordered_map(note, range(1000), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.02)
    assert len(begun) <= 3 + 2 * 2
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_is_raised_where_its_result_is_read(threads: int) -> None:
    def fails_at_two(number: int) -> float:
        return 1.0 / (number - 2)

    results = ordered_map(fails_at_two, range(9), threads=threads)
    assert [next(results), next(results)] == [-0.5, -1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_there_is_a_core() -> None:
    assert cores() >= 1
