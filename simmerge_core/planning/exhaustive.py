"""Exhaustive search: every order, level by level, so that plans share the steps they have in common.

The last level holds nearly all steps. With an estimator, its steps are scored in float32, and only those that can be
among the best, given the bound on the error, are scored again exactly: the plans are the same, for a third of the time.
Levels are split into parts of a fixed size, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from simmerge_core.planning.contenders import Contenders, promising
from simmerge_core.planning.estimate import Estimator
from simmerge_core.planning.parallel import ordered_map
from simmerge_core.planning.pool import Pool
from simmerge_core.planning.ranking import first_pair_in_order, joined, ranked
from simmerge_core.planning.scoring import Prefixes, Scorer, singles
from simmerge_core.selector.threads import one_blas_thread

_ROWS = 32_768  # steps scored at once: bounds memory at rows × features and members × rows × width, per thread


def exhaustive_search(
    scorer: Scorer,
    pool: Pool,
    *,
    top: int,
    joint: bool = False,
    estimator: Estimator | None = None,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Prefixes:
    """The `top` best plans among all, best first; the same bytes for any number of threads.

    Parameters
    ----------
    joint
        Whether all sequences of actions compete; see `Scorer.extend`.
    estimator
        Of the scorer's steps; saves time and changes nothing else.
    progress
        Is told the share of the last level that is done.
    """
    # One thread per product; the parts are what runs side by side.
    with one_blas_thread():
        prefixes = singles(np.arange(len(pool)))
        prefixes = prefixes.take(pool.extensible(prefixes.members))
        for _ in range(2, pool.k):
            level = _Level(scorer, pool, prefixes, joint)
            found = ordered_map(level.extended, level.parts(), threads=threads)
            prefixes = joined([plans for plans in found if plans is not None])
        level = _Level(scorer, pool, prefixes, joint)
        if estimator is None:
            return level.best(progress or _silent, top=top, threads=threads)
        return level.best_by(estimator, progress or _silent, top=top, threads=threads)


@dataclass(frozen=True, slots=True)
class _Level:
    """All steps that append one checkpoint to prefixes of one size."""

    scorer: Scorer
    pool: Pool
    prefixes: Prefixes
    joint: bool

    def parts(self) -> list[range]:
        """Ranges of prefixes, small enough to score their steps at once."""
        size = max(1, _ROWS // len(self.pool))
        return [range(start, min(start + size, len(self.prefixes))) for start in range(0, len(self.prefixes), size)]

    def steps(self, part: range) -> tuple[np.ndarray, np.ndarray]:
        """(n,) prefixes of a part, each with (n,) the checkpoints to append; only those that can still become plans."""
        members = self.prefixes.members[part.start : part.stop]
        row, added = np.nonzero(self.pool.appendable(members))
        if members.shape[1] == 1 and self.scorer.symmetric:
            listed = first_pair_in_order(self.scorer, np.stack([members[row, 0], added], axis=1))
            row, added = row[listed], added[listed]
        return row + part.start, added

    def extended(self, part: range) -> Prefixes | None:
        """The plans that a part's steps make; None without any."""
        row, added = self.steps(part)
        return self.scorer.extend(self.prefixes.take(row), added, joint=self.joint) if len(row) else None

    def best(self, report: Callable[[float], None], *, top: int, threads: int) -> Prefixes:
        """The `top` best plans, every step scored exactly."""

        def scored(part: range) -> Prefixes | None:
            plans = self.extended(part)
            return None if plans is None else ranked(self.scorer, plans, top)

        return self._fold(
            _reporting(ordered_map(scored, self.parts(), threads=threads), len(self.parts()), report), top
        )

    def best_by(self, estimator: Estimator, report: Callable[[float], None], *, top: int, threads: int) -> Prefixes:
        """The same plans; only steps that an estimate leaves in question are scored exactly."""
        error = estimator.error  # of a plan too: all its steps but the last are exact

        def estimated(part: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            row, added = self.steps(part)
            estimates = estimator.best_extension(self.prefixes.take(row), added)
            index = promising(estimates, top=top, error=error)
            return row[index], added[index], estimates[index]

        def exactly(row: np.ndarray, added: np.ndarray) -> Prefixes:
            def scored(piece: slice) -> Prefixes:
                plans = self.scorer.extend(self.prefixes.take(row[piece]), added[piece], joint=self.joint)
                return ranked(self.scorer, plans, top)

            pieces = [slice(start, start + _ROWS) for start in range(0, len(row), _ROWS)]
            return self._fold(ordered_map(scored, pieces, threads=threads), top)

        contenders = Contenders(self.scorer, exactly, top=top, error=error)
        found = ordered_map(estimated, self.parts(), threads=threads)
        for row, added, estimates in _reporting(found, len(self.parts()), report):
            contenders.add(row, added, estimates)
        return contenders.best()

    def _fold(self, found: Iterable[Prefixes | None], top: int) -> Prefixes:
        best: Prefixes | None = None
        for plans in found:
            if plans is not None:
                best = ranked(self.scorer, plans if best is None else joined([best, plans]), top)
        assert best is not None, "the pool has at least one plan"
        return best


_Found = TypeVar("_Found")


def _reporting(found: Iterable[_Found], count: int, report: Callable[[float], None]) -> Iterator[_Found]:
    for number, item in enumerate(found, start=1):
        yield item
        report(number / count)


def _silent(fraction: float) -> None:
    """Progress that nobody asked for."""
