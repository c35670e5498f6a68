"""How far a step is: to the listener of this process, if there is one, else to the run's log every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

Progress = Callable[[str, float], None]
"""Takes a message and the fraction done, from 0 to 1."""

_SECONDS_BETWEEN_LOG_LINES = 5.0
_listeners: list[Progress] = []


@contextmanager
def listening(listener: Progress | None) -> Iterator[None]:
    """Send the progress of steps that run in this process to `listener` meanwhile."""
    if listener is None:
        yield
        return
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def progress_of(context: dg.AssetExecutionContext) -> Progress:
    """The progress callback of a step."""
    last = time.monotonic()

    def report(message: str, fraction: float) -> None:
        nonlocal last
        for listener in _listeners:
            listener(message, fraction)
        now = time.monotonic()
        if not _listeners and now - last >= _SECONDS_BETWEEN_LOG_LINES:
            last = now
            context.log.info(f"{fraction:4.0%} {message}")

    return report


def logged(context: dg.OpExecutionContext) -> Progress:
    """As `progress_of`, to the log alone: for an op that itself listens to the steps of the runs it starts."""
    last = time.monotonic()

    def report(message: str, fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LOG_LINES:
            last = now
            context.log.info(f"{fraction:4.0%} {message}")

    return report


def part(progress: Progress, done: int, of: int) -> Progress:
    """The progress of piece number `done` (from 0) of `of` equal pieces, as part of the whole."""
    return lambda message, fraction: progress(message, (done + min(max(fraction, 0.0), 1.0)) / max(of, 1))
