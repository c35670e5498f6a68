"""Work that is split into parts on threads, with results in the order of the parts whatever the number of threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(function: Callable[[_Part], _Result], parts: Iterable[_Part], *, threads: int) -> Iterator[_Result]:
    """Results of a function of each part, in order; threads pay off where it is NumPy that works.

    At most two parts per thread are begun and not yet read, so that memory does not grow with the number of parts.
    """
    if threads <= 1:
        yield from map(function, parts)
        return
    with ThreadPoolExecutor(threads) as executor:
        begun: deque[Future[_Result]] = deque()
        try:
            for part in parts:
                begun.append(executor.submit(function, part))
                if len(begun) > 2 * threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:  # after an error, what has not begun is not worth waiting for
                future.cancel()
