"""Brings one asset after another up to date: what is missing, in few runs, and within a budget.

Each asset is one run over a range of partitions: the checkpoints are loaded once, the pool of label processes is
started once, and Dagster's own work per partition is one event. Partitions whose stamp says that they were computed
from what is there now are left alone, so that an interrupted call goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import dagster as dg

from simmerge_core.catalog import Catalog
from simmerge_core.errors import SimMergeError
from simmerge_core.storage import kept_listings
from simmerge_core.tables import DataRoot
from simmerge_core.writers import is_alive
from simmerge_pipeline.asset_options import ACCELERATOR
from simmerge_pipeline.contents import kept_manifests
from simmerge_pipeline.lost_pairs import Lacking, lost_pairs
from simmerge_pipeline.partitions import CHECKPOINT, CHECKPOINT_TASK, DAY, MERGE_REQUEST, TASK, add_partitions, cell
from simmerge_pipeline.progress import Progress, listening
from simmerge_pipeline.ranges import ranges, rectangles
from simmerge_pipeline.stamps import STAMP, exists, settled, stamp

_DRIVER_TAG = "simmerge/process"
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_EVENT_PAGE = 1000
_PIECE = 10  # partitions before the first look at a budget, and at least between two: two checkpoints of five tasks
_LONGEST_PIECE = 600.0  # seconds between two looks, more or less

# Share of the wall time on the demo catalog, for a progress bar that moves evenly.
_SHARES = {"merge_labels": 50.0, "plan_labels": 15.0, "selector": 10.0, "probe_activations": 6.0, "report": 5.0}


@dataclass
class AssetSummary:
    """What happened to one asset.

    Attributes
    ----------
    partitions
        Partitions that the catalog asks for; 1 for an unpartitioned asset.
    computed, current
        Partitions written now, and those that were up to date.
    failed
        Sentence by partition key (the asset's name if it is unpartitioned) of those that could not be computed.
    left
        Partitions that a budget did not reach, or whose inputs it did not.
    runs, seconds
        Dagster runs, and wall time of all of them.
    """

    name: str
    partitions: int = 0
    computed: int = 0
    current: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0
    runs: int = 0
    seconds: float = 0.0


@dataclass
class Budget:
    """Seconds that steps which want the accelerator may take in all; others are not counted.

    A piece is started if what it is expected to take, by the pieces of its asset before it, still fits.
    """

    seconds: float
    spent: float = 0.0

    def allows(self, expected: float) -> bool:
        """Whether something that is expected to take so many seconds may start."""
        return self.spent < self.seconds and self.spent + expected <= self.seconds


class Driver:
    """Materializes what a catalog declares, in this process, into an instance."""

    def __init__(
        self,
        job: dg.JobDefinition,
        instance: dg.DagsterInstance,
        catalog: Catalog,
        root: DataRoot,
        budget: Budget | None,
    ) -> None:
        self.job, self.instance, self.catalog, self.root, self.budget = job, instance, catalog, root, budget
        self.graph = job.asset_layer.asset_graph
        self.changing: list[str] = []  # found checkpoints that are not taken yet
        self.unreached: dict[str, set[str | None]] = {}  # keys by asset that the budget left

    def refuse_unknown(self, names: Sequence[str]) -> None:
        """Raise SimMergeError if an asset does not exist."""
        known = [key.to_user_string() for key in self.graph.toposorted_asset_keys]
        if unknown := [name for name in names if name not in known]:
            raise SimMergeError(f"There is no asset {unknown[0]!r}: choose among {', '.join(known)}.")

    def close_interrupted_runs(self) -> None:
        """Runs of a driver that was killed stay open for ever: nobody else looks after them."""
        open_states = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
        for run in self.instance.get_runs(dg.RunsFilter(statuses=open_states)):
            host, _, process = run.tags.get(_DRIVER_TAG, "").partition(":")
            if host == socket.gethostname() and not is_alive(int(process)):
                self.instance.report_run_failed(run, "The process that executed this run was stopped.")

    def register_partitions(self) -> None:
        """Add the catalog's entries to the dynamic partitions, in catalog order."""
        from simmerge_pipeline.defs.catalog.sensors import declared_keys

        self._leave_out_changing()
        for name, keys in declared_keys(self.catalog).items():
            add_partitions(self.instance, name, keys)

    def _leave_out_changing(self) -> None:
        """A folder that may still be copied into is taken next time, as the catalog's sensor does."""
        from simmerge_pipeline.defs.catalog.sensors import still_changing

        known = set(self.instance.get_dynamic_partitions(str(CHECKPOINT.name)))
        new = [c for c in self.catalog.checkpoint_ids if c not in known and not exists("checkpoints", self.root, c)]
        self.changing = still_changing(self.catalog, new)
        whole = tuple(entry for entry in self.catalog.checkpoints if entry.id not in self.changing)
        self.catalog = self.catalog.model_copy(update={"checkpoints": whole})

    def materialize_each(self, only: Sequence[str] | None, progress: Progress) -> list[AssetSummary]:
        """Bring the assets up to date, in dependency order."""
        names = [key.to_user_string() for key in self.graph.toposorted_asset_keys]
        names = [name for name in names if only is None or name in only]
        total, done = sum(_SHARES.get(name, 2.0) for name in names), 0.0
        summaries = []
        for name in names:
            share = _SHARES.get(name, 2.0)

            def tell(message: str, fraction: float, name: str = name, done: float = done, share: float = share) -> None:
                progress(f"{name}: {message}" if message else name, (done + share * fraction) / total)

            tell("", 0.0)
            summaries.append(self.materialize(name, tell))
            done += share
        progress("done", 1.0)
        return summaries

    def materialize(self, name: str, progress: Progress) -> AssetSummary:
        """Bring one asset up to date."""
        keys = self._declared(name)
        summary = AssetSummary(name, partitions=len(keys))
        known, wanted = self._stamps(name, keys), []
        with kept_listings(self.root.root), kept_manifests():  # nothing is written meanwhile
            lacking = self._lacking(name)
            for key in keys:
                if self._waits(name, key):
                    self._leave(summary, [key])
                    continue
                try:
                    if settled(name, self.catalog, self.root, key):
                        summary.current += 1
                        continue
                    current = stamp(name, self.catalog, self.root, key)
                except (SimMergeError, OSError) as error:
                    summary.failed[key or name] = str(error)
                    continue
                if known.get(key) == current and key not in lacking and exists(name, self.root, key):
                    summary.current += 1
                else:
                    wanted.append(key)
        begun, done, total = time.perf_counter(), 0, len(wanted)
        whole, pace = "", 0.0  # what ended a run without naming partitions; seconds per partition so far
        while done < len(wanted):
            piece = wanted[done : done + self._size_of_piece(name, total - done, pace)]
            if self._counted(name) and not self._budget_allows(pace * len(piece)):
                self._leave(summary, wanted[done:])
                wanted = wanted[:done]
                break
            started, spans = time.perf_counter(), self._spans(name, piece)
            for run, span in enumerate(spans):

                def tell(
                    message: str,
                    fraction: float,
                    run: int = run,
                    done: int = done,
                    size: int = len(piece),
                    of: int = len(spans),
                ) -> None:
                    progress(message, (done + size * (run + fraction) / of) / total)

                with listening(tell):
                    failed, text = self._run(name, span)
                summary.failed.update(failed)
                whole = whole or text
                summary.runs += 1
            took = time.perf_counter() - started
            pace = took / len(piece)
            done += len(piece)
            if self.budget is not None and self._counted(name):
                self.budget.spent += took
        if whole:
            known = self._stamps(name, wanted)
            lost = [key for key in wanted if known.get(key) != stamp(name, self.catalog, self.root, key)]
            summary.failed.update({key or name: whole for key in lost if (key or name) not in summary.failed})
        summary.seconds = time.perf_counter() - begun
        summary.computed = sum(1 for key in wanted if (key or name) not in summary.failed)
        return summary

    def _lacking(self, name: str) -> Lacking:
        """Partitions with the right stamp that lack pairs, which a stamp does not tell."""
        with contextlib.suppress(SimMergeError, OSError):  # what is wrong, the stamps say
            return lost_pairs(name, self.catalog, self.root)
        return {}

    def _leave(self, summary: AssetSummary, keys: Sequence[str | None]) -> None:
        summary.left += len(keys)
        self.unreached.setdefault(summary.name, set()).update(keys)

    def _waits(self, name: str, key: str | None) -> bool:
        """Whether the budget left a partition that this one reads by lineage."""
        own = {key, *(key or "").split("|")}
        parents = [parent.to_user_string() for parent in self.graph.get(dg.AssetKey(name)).parent_keys]
        return any(own & self.unreached.get(parent, set()) for parent in parents)

    def _counted(self, name: str) -> bool:
        """Whether an asset wants the accelerator."""
        return self.graph.get(dg.AssetKey(name)).assets_def.op.pool == ACCELERATOR["pool"]

    def _budget_allows(self, expected: float) -> bool:
        return self.budget is None or self.budget.allows(expected)

    def _size_of_piece(self, name: str, left: int, pace: float) -> int:
        """How many partitions are materialized at once: all, or under a budget what is little of what is left of it."""
        if self.budget is None or not self._counted(name):
            return left
        if not pace:
            return _PIECE
        # The next ones may be slower, and what a killed run was at is lost.
        fitting = int(min((self.budget.seconds - self.budget.spent) / 4, _LONGEST_PIECE) / pace)
        return max(_PIECE, fitting - fitting % _PIECE)

    def _declared(self, name: str) -> list[str | None]:
        """Partition keys that the catalog asks for; [None] for an unpartitioned asset."""
        checkpoints, tasks = [self.catalog.base.id, *self.catalog.checkpoint_ids], self.catalog.task_ids
        partitions = self.graph.get(dg.AssetKey(name)).partitions_def
        if partitions == CHECKPOINT_TASK:
            return [f"{checkpoint}|{task}" for checkpoint in checkpoints for task in tasks]
        if partitions is None:
            return [None]
        if partitions == DAY:
            return []  # what a day's schedule may spend is not for a backfill
        declared = {CHECKPOINT: checkpoints, TASK: tasks, MERGE_REQUEST: self._requests()}
        return list(declared[partitions])  # type: ignore[index]

    def _requests(self) -> list[str]:
        """Merge requests, without those that name a checkpoint which is left for another time."""
        asked = self.catalog.merge_requests
        return [r.id for r in asked if r.checkpoints == "all" or not {*r.checkpoints} & {*self.changing}]

    def _stamps(self, name: str, keys: Sequence[str | None]) -> dict[str | None, str]:
        """The stamp of the newest materialization of each partition."""
        found: dict[str | None, str] = {}
        cursor, wanted = None, set(keys)
        while True:
            page = self.instance.fetch_materializations(dg.AssetKey(name), limit=_EVENT_PAGE, cursor=cursor)
            for record in page.records:
                event = record.asset_materialization
                if event is not None and event.partition not in found:
                    value = event.metadata.get(STAMP)
                    found[event.partition] = str(value.value) if value is not None else ""
            if not page.has_more or wanted <= found.keys():
                return found
            cursor = page.cursor

    def _spans(self, name: str, keys: Sequence[str | None]) -> list[tuple[str, str] | None]:
        """Ranges of partition keys that one run each will serve."""
        partitions = self.graph.get(dg.AssetKey(name)).partitions_def
        if partitions is None:
            return [None] * len(keys)
        if not keys:
            return []
        texts = [key for key in keys if key is not None]
        if isinstance(partitions, dg.MultiPartitionsDefinition):
            registered = [self.instance.get_dynamic_partitions(n) for n in ("checkpoint", "task")]
            corners = rectangles(map(cell, texts), *registered)
            return [(str(first.key), str(last.key)) for first, last in corners]
        return list(ranges(texts, self.instance.get_dynamic_partitions(str(partitions.name))))  # type: ignore[attr-defined]

    def _run(self, name: str, span: tuple[str, str] | None) -> tuple[dict[str, str], str]:
        """Execute one run; what failed by partition key, and what failed without naming any."""
        tags = {_DRIVER_TAG: f"{socket.gethostname()}:{os.getpid()}"}
        single = span[0] if span is not None and span[0] == span[1] else None
        if span is not None and single is None:
            tags |= {_RANGE_START: span[0], _RANGE_END: span[1]}
        result = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(name)],
            partition_key=single,
            tags=tags,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        return ({}, "") if result.success else _failures(result)


def _failures(result: dg.ExecuteInProcessResult) -> tuple[dict[str, str], str]:
    """What failed by partition key, or a sentence for the whole run; an interrupt is raised again."""
    if result.dagster_run.status == dg.DagsterRunStatus.CANCELED:
        raise KeyboardInterrupt
    failed = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    if not failed:
        return {}, "The run failed before its step started."
    told = failed[0].user_failure_data
    by_key = told.metadata.get("failed") if told is not None else None
    if isinstance(by_key, dg.JsonMetadataValue) and isinstance(by_key.data, dict):
        return {str(key): str(text) for key, text in by_key.data.items()}, ""
    error = failed[0].error
    while error is not None and error.cause is not None:
        error = error.cause
    # Dagster turns Ctrl-C and SIGTERM inside a step into a failure of that step, and would go on with the next run.
    if error is not None and error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
        raise KeyboardInterrupt
    if error is None:
        return {}, "The step failed."
    sentence = " ".join(error.message.split())
    # Dagster puts the class before the message, which says nothing where the message is ours.
    named, _, text = sentence.partition(": ")
    return {}, text if text and named.startswith("simmerge_core.errors.") else sentence
