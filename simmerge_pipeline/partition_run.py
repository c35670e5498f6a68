"""One step that serves many partitions: what was written, what failed, and how both are told to Dagster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from simmerge_core.errors import SimMergeError
from simmerge_pipeline.checks import Verdicts
from simmerge_pipeline.partitions import Cell, cell
from simmerge_pipeline.progress import Progress, part, progress_of
from simmerge_pipeline.sentences import some

_DIMENSION_TAG = "dagster/partition/"
_LONGEST_TAG = 500  # characters; a run over hundreds of checkpoints is found by its range
_SHOWN = 8  # partitions with one fault


class PartitionRun:
    """The partitions that a step was asked for; one broken partition does not stop the others.

    Each partition is computed inside `attempt`. `results` then reports those that were written, and after that, if any
    failed, fails the step in one sentence that names them.
    """

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self.context = context
        self.keys: list[str] = [str(key) for key in context.partition_keys]
        self.progress: Progress = progress_of(context)
        self.verdicts = Verdicts()
        self.failed: dict[str, Exception] = {}
        self._written: dict[str, Mapping[str, Any]] = {}
        self._begun = time.monotonic()
        self._tag_run()

    def _tag_run(self) -> None:
        """Let runs be found by checkpoint and task in the UI, also those over a range of partitions."""
        named: dict[str, set[str]] = {}
        for key in self.keys:
            parts = dict(zip(("checkpoint", "task"), key.split("|"), strict=False)) if "|" in key else {}
            for name, value in parts.items():
                named.setdefault(name, set()).add(value)
        tags = {f"simmerge/{name}": ",".join(sorted(values)) for name, values in named.items()}
        tags = {name: value for name, value in tags.items() if len(value) <= _LONGEST_TAG}
        if tags:
            self.context.instance.add_run_tags(self.context.run.run_id, tags)

    @property
    def cells(self) -> list[Cell]:
        """The keys of a checkpoint × task asset."""
        return [cell(key) for key in self.keys]

    @property
    def tasks_of(self) -> dict[str, list[str]]:
        """Tasks asked for, by checkpoint: what one load of the checkpoint serves."""
        grouped: dict[str, list[str]] = {}
        for checkpoint, task in self.cells:
            grouped.setdefault(checkpoint, []).append(task)
        return grouped

    @property
    def checkpoints_of(self) -> dict[str, list[str]]:
        """Checkpoints asked for, by task."""
        grouped: dict[str, list[str]] = {}
        for checkpoint, task in self.cells:
            grouped.setdefault(task, []).append(checkpoint)
        return grouped

    @property
    def keys_of_task(self) -> dict[str, list[str]]:
        """Keys asked for, by task."""
        return {task: [Cell(c, task).key for c in checkpoints] for task, checkpoints in self.checkpoints_of.items()}

    def piece(self, number: int, of: int) -> Progress:
        """Progress of one of several equal pieces of the step."""
        return part(self.progress, number, of)

    @contextmanager
    def attempt(self, *keys: str) -> Iterator[None]:
        """Compute what `keys` need; an error marks those of them that were not written as failed."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, SimMergeError):  # a fault of the program: keep where it happened
                self.context.log.exception(f"{', '.join(keys)} failed.")
            for key in keys:
                self.fail(key, error)

    def fail(self, key: str, error: Exception) -> None:
        """Mark a partition as failed, unless it has been written or has failed before."""
        if key not in self._written:
            self.failed.setdefault(key, error)

    def wrote(self, key: str, metadata: Mapping[str, Any]) -> None:
        """Mark a partition as written."""
        self._written[key] = metadata

    def results(
        self, *, metadata: Mapping[str, Any] | None = None
    ) -> Iterator[dg.MaterializeResult | dg.AssetMaterialization | dg.AssetCheckResult]:
        """Everything the step has to report; raises `dagster.Failure` at the end if a partition failed.

        Parameters
        ----------
        metadata
            Of the table as a whole, such as a picture; goes with the last event, which the asset's page shows.
        """
        checks = self.verdicts.results()
        share = (time.monotonic() - self._begun) / max(len(self._written) + len(self.failed), 1)
        self._written = {key: {**own, "seconds": round(share, 3)} for key, own in self._written.items()}
        if self._written and metadata:
            # With the last one, which the asset's page shows: a picture per partition would fill the event log.
            last = list(self._written)[-1] if self.failed else self._told_last()
            self._written[last] = {**self._written[last], **metadata}
        if not self.failed:
            for key, own in self._written.items():
                self.context.add_asset_metadata(own, partition_key=key)
            yield dg.MaterializeResult(check_results=checks)
            return
        # A MaterializeResult would mark every partition of the run as materialized, the failed ones too.
        for key, own in self._written.items():
            yield dg.AssetMaterialization(
                self.context.asset_key, partition=key, metadata=own, tags=_dimension_tags(key)
            )
        yield from checks
        raise self._failure()

    def _told_last(self) -> str:
        """The partition whose event Dagster writes last: the keys of a run are told in the order of a set."""
        partitions = self.context.assets_def.partitions_def
        assert partitions is not None
        told = [str(key) for key in partitions.empty_subset().with_partition_keys(self.keys).get_partition_keys()]
        return next((key for key in reversed(told) if key in self._written), list(self._written)[-1])

    def _failure(self) -> dg.Failure:
        sentences: dict[str, list[str]] = {}
        for key, error in self.failed.items():
            text = str(error) if isinstance(error, SimMergeError) else f"{type(error).__name__}: {error}"
            sentences.setdefault(text, []).append(key)
        told = " ".join(f"{some(keys, _SHOWN)}: {text}" for text, keys in sentences.items())
        if self._written:
            told = f"{len(self.failed)} of {len(self.keys)} partitions failed, the others are written. {told}"
        return dg.Failure(
            told,
            metadata={"failed": dg.MetadataValue.json({key: str(error) for key, error in self.failed.items()})},
            # What the user has to repair does not repair itself.
            allow_retries=not all(isinstance(error, SimMergeError) for error in self.failed.values()),
        )


def _dimension_tags(key: str) -> dict[str, str]:
    if "|" not in key:
        return {}
    checkpoint, task = cell(key)
    return {f"{_DIMENSION_TAG}checkpoint": checkpoint, f"{_DIMENSION_TAG}task": task}
