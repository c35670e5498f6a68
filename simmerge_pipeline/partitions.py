"""Partitions: dynamic checkpoints, tasks and merge requests, and the product of the first two.

One partition per pair would be 24,750 at 100 checkpoints and 5 tasks: pairs are rows of Parquet files instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import dagster as dg
from sqlalchemy.exc import IntegrityError

CHECKPOINT = dg.DynamicPartitionsDefinition(name="checkpoint")
TASK = dg.DynamicPartitionsDefinition(name="task")
MERGE_REQUEST = dg.DynamicPartitionsDefinition(name="merge_request")
DAY = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_offset=1)  # today's, too
CHECKPOINT_TASK = dg.MultiPartitionsDefinition({"checkpoint": CHECKPOINT, "task": TASK})


class Cell(NamedTuple):
    """One checkpoint × task partition."""

    checkpoint: str
    task: str

    @property
    def key(self) -> dg.MultiPartitionKey:
        """The Dagster partition key, ``checkpoint|task``."""
        return dg.MultiPartitionKey({"checkpoint": self.checkpoint, "task": self.task})


def cell(key: str) -> Cell:
    """Read a checkpoint × task partition key; ids are slugs, so the bar can only be the separator."""
    checkpoint, task = key.split("|")
    return Cell(checkpoint, task)


def add_partitions(instance: dg.DagsterInstance, name: str, keys: Sequence[str]) -> None:
    """Add those of `keys` that are not there yet, in order; several processes may do so at once."""
    while new := _absent(instance, name, keys):
        # Dagster looks what is there and then inserts: another process may have come between.
        with contextlib.suppress(IntegrityError):
            instance.add_dynamic_partitions(name, new)


def _absent(instance: dg.DagsterInstance, name: str, keys: Sequence[str]) -> list[str]:
    known = set(instance.get_dynamic_partitions(name))
    return [key for key in keys if key not in known]
