"""Train many selectors in several processes: experiments need dozens, and each takes one core."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simmerge_core.experiments.data import Progress
    from simmerge_core.selector import SelectorConfig, TrainingRows
    from simmerge_core.storage import Location

Job = tuple["Location", "TrainingRows", "SelectorConfig", int]
"""Folder of the selector, what it learns from, its settings and its seed."""


def train_into(jobs: Sequence[Job], *, workers: int, progress: Progress) -> None:
    """Train every job's selector into its folder; folders appear complete or not at all, so a killed call resumes."""
    if workers <= 1 or len(jobs) <= 1:
        for number, job in enumerate(jobs):
            _train(job)
            progress(f"trained {number + 1} of {len(jobs)} selectors", (number + 1) / len(jobs))
        return
    # Spawned, not forked: torch and polars hold threads that a fork would leave behind locked.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_end_with_parent) as pool:
        waiting = [pool.submit(_train, job) for job in jobs]
        try:
            for number, done in enumerate(as_completed(waiting)):
                done.result()
                progress(f"trained {number + 1} of {len(jobs)} selectors", (number + 1) / len(jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train(job: Job) -> None:
    from simmerge_core.selector import train

    folder, rows, config, seed = job
    train(rows, config=config, seed=seed).save(folder)
