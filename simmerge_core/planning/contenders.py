"""The steps that may be among the best, while their utilities are known up to an error only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simmerge_core.planning.ranking import joined, ranked
from simmerge_core.planning.scoring import Prefixes, Scorer

_HELD = 262_144  # steps held at most, unless more plans are asked for: then the exact scores clear them


def promising(estimates: np.ndarray, *, top: int, error: float) -> np.ndarray:
    """Indices of the estimates that can be among the `top` best; the others are below them whatever the errors are."""
    if len(estimates) <= top:
        return np.arange(len(estimates))
    least = np.partition(estimates, -top)[-top]
    return np.flatnonzero(estimates >= least - 2.0 * error)


class Contenders:
    """Collects steps with estimated utilities; gives back the best plans by their exact ones.

    A plan is dropped only if at least `top` others are better whatever the errors are, so that what comes back is
    what scoring every step exactly would give.

    Parameters
    ----------
    scorer
        Ranks plans.
    exactly
        (n,) prefixes and (n,) added checkpoints → their plans, exactly scored; at least the `top` best of them.
    top
        Number of plans wanted.
    error
        How far an estimate is from the exact utility at most.
    """

    def __init__(
        self, scorer: Scorer, exactly: Callable[[np.ndarray, np.ndarray], Prefixes], *, top: int, error: float
    ) -> None:
        self._scorer, self._exactly, self._top, self._error = scorer, exactly, top, error
        self._limit = max(_HELD, 4 * top)
        self._best: Prefixes | None = None
        self._floor = -np.inf  # the last of `top` plans is known to be at least this good
        self._row = np.zeros(0, dtype=np.int64)
        self._added = np.zeros(0, dtype=np.int64)
        self._estimates = np.zeros(0)

    def add(self, row: np.ndarray, added: np.ndarray, estimates: np.ndarray) -> None:
        """Steps that append `added` (n,) to prefix `row` (n,), with estimates (n,)."""
        fine = estimates >= self._floor - self._error
        self._row = np.concatenate([self._row, row[fine]])
        self._added = np.concatenate([self._added, added[fine]])
        self._estimates = np.concatenate([self._estimates, estimates[fine]])
        self._keep(promising(self._estimates, top=self._top, error=self._error))
        if len(self._row) > self._limit:
            self._settle()

    def best(self) -> Prefixes:
        """The `top` best plans of all that were added, best first, exactly scored."""
        if len(self._row):
            self._settle()
        assert self._best is not None, "there is at least one plan"
        return self._best

    def _keep(self, index: np.ndarray) -> None:
        self._row, self._added, self._estimates = self._row[index], self._added[index], self._estimates[index]

    def _settle(self) -> None:
        found = self._exactly(self._row, self._added)
        self._best = ranked(self._scorer, found if self._best is None else joined([self._best, found]), self._top)
        if len(self._best) == self._top:
            self._floor = float(self._scorer.plan_utility(self._best)[-1])
        self._keep(np.zeros(0, dtype=np.int64))
