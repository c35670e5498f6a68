"""Progress in words: how many of how many, how fast, how long still."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, float], None]


class Pace:
    """Calls `progress` with a message and a fraction at most every half second, and at the end."""

    def __init__(self, progress: Progress | None, *, total: int, done: int, what: str) -> None:
        self._progress, self._total, self._done, self._what = progress, total, done, what
        self._first, self._start, self._told = done, 0.0, 0.0

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if self._done == self._first + 1:
            self._start = time.monotonic()  # the first one's time is mostly that of starting up
        self.tell()

    def tell(self) -> None:
        """Say where we are, unless it was said just now."""
        now = time.monotonic()
        last = self._done >= self._total
        if self._progress is None or (now - self._told < 0.5 and not last):
            return
        self._told = now
        made, elapsed = self._done - self._first - 1, now - self._start
        text = f"{self._what}: {self._done} of {self._total}"
        if made > 0 and not last:
            rate = made / max(elapsed, 1e-9)
            text += f", {rate:.1f} per second, {_duration((self._total - self._done) / rate)} left"
        elif last:
            text += f" ({self._first} were stored already)" if self._first else ""
        self._progress(text, self._done / self._total if self._total else 1.0)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
