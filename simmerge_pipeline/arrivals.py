"""Whether what has arrived has been dealt with, which merge requests and reports wait for."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Any

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus  # named nowhere else in 1.13

from simmerge_core.catalog import Catalog
from simmerge_core.errors import SimMergeError
from simmerge_pipeline.partitions import CHECKPOINT, Cell
from simmerge_pipeline.resources import CatalogResource

_BEFORE = {
    "checkpoints": (),
    "probe_activations": ("checkpoints",),
    "weight_gram": ("checkpoints",),
    "functional_similarity": ("probe_activations",),
    "pairwise_features": ("functional_similarity", "weight_gram"),
    "merge_labels": ("pairwise_features",),
}
"""What a new checkpoint or task goes through, and what each step of it reads by lineage."""

_OPEN_RUNS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@functools.lru_cache(maxsize=1)
def catalog_of_tick(when: datetime) -> Catalog | None:
    """The catalog as it is at a tick, read once for all conditions; None if it cannot be."""
    try:
        return CatalogResource.from_environment().load()
    except SimMergeError:
        return None
    except Exception:  # a condition that raises takes the whole tick down, and with it every other asset's
        dg.get_dagster_logger("simmerge").exception("The catalog cannot be read at this tick.")
        return None


_ASKABLE: dict[tuple[datetime, dg.AssetKey], set[str]] = {}
"""Partitions of each asset that are missing and were not asked for before this tick, by the time of the tick."""


def _note_askable(context: dg.AutomationContext, keys: Set[str]) -> None:
    for when, asset in list(_ASKABLE):
        if when != context.evaluation_time:
            del _ASKABLE[when, asset]
    _ASKABLE[context.evaluation_time, context.key] = set(keys)


class StillDeclared(dg.AutomationCondition):
    """True for the partitions that the catalog declares at this moment; what has left it is not asked for.

    Nor is a merge request that names a checkpoint which is not there (yet).
    """

    @property
    def description(self) -> str:
        """What the UI shows beside the condition."""
        return "the catalog declares it"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """Look only at what is asked for otherwise."""
        candidates = context.candidate_subset
        partitions = candidates.expensively_compute_asset_partitions() if not candidates.is_empty else set()
        _note_askable(context, {str(each.partition_key) for each in partitions})
        if candidates.is_empty or context.partitions_def is None:
            return dg.AutomationResult(context, true_subset=candidates)
        catalog = catalog_of_tick(context.evaluation_time)
        if catalog is None:
            return dg.AutomationResult(context, true_subset=candidates)  # the step says what is wrong
        experts = set(catalog.checkpoint_ids)
        known = {
            *(catalog.base.id, *experts),
            *catalog.task_ids,
            *(r.id for r in catalog.merge_requests if r.checkpoints == "all" or {*r.checkpoints} <= experts),
        }
        keys = {key for key in partitions if _parts(key.partition_key) <= known}
        subset = context.asset_graph_view.get_asset_subset_from_asset_partitions(context.key, keys)
        return dg.AutomationResult(context, true_subset=subset)


def _parts(key: str | None) -> set[str]:
    return set((key or "").split("|"))


class ArrivalsSettled(dg.AutomationCondition):
    """True when nothing that this is computed from is at work, about to be, or still to come.

    What failed or was canceled is not waited for, nor what needs it: a broken checkpoint does not hold the others'
    requests up. One whose folder was found and is still changing is waited for.
    """

    @property
    def description(self) -> str:
        """What the UI shows beside the condition."""
        return "every checkpoint and task that has arrived is labelled, or has failed or been canceled"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """Ask the instance only if there is something to decide."""
        settled = not context.candidate_subset.is_empty and self._settled(context)
        subset = context.candidate_subset if settled else context.get_empty_subset()
        return dg.AutomationResult(context, true_subset=subset)

    def _settled(self, context: dg.AutomationContext) -> bool:
        above = dg.AssetSelection.assets(context.key).upstream(include_self=False).resolve(context.asset_graph)
        requested = context.request_subsets_by_key
        if any(key in requested and not requested[key].is_empty for key in above):
            return False
        instance = context.asset_graph_view.instance
        # They are open for a while after their last partition is there, and the selector waits for their end.
        if above & at_work(instance):
            return False
        catalog = catalog_of_tick(context.evaluation_time)
        if catalog is None:
            return True  # the sensor that reads it says what is wrong
        view = context.asset_graph_view  # partitions as they were when the tick began, as for all conditions of it
        known = view.get_full_subset(key=dg.AssetKey("checkpoints")).expensively_compute_partition_keys()
        checkpoints = [catalog.base.id, *catalog.checkpoint_ids]
        if not known >= {*checkpoints}:
            return False  # a copy that the sensor waits for, or one that it has yet to see
        known = view.get_full_subset(key=dg.AssetKey("plan_labels")).expensively_compute_partition_keys()
        tasks = [task for task in catalog.task_ids if task in known]
        askable = {
            asset: keys for asset in _BEFORE
            if (keys := _ASKABLE.get((context.evaluation_time, dg.AssetKey(asset)))) is not None
        }  # fmt: skip
        return not still_to_come(context.asset_graph, instance, checkpoints, tasks, askable)


def at_work(instance: dg.DagsterInstance) -> set[dg.AssetKey]:
    """Assets that a run or backfill which has not ended is about."""
    runs = instance.get_runs(dg.RunsFilter(statuses=_OPEN_RUNS))
    backfills = instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED]))
    selections = [*(run.asset_selection for run in runs), *(backfill.asset_selection for backfill in backfills)]
    return {key for selection in selections for key in selection or ()}


def still_to_come(
    graph: Any,
    instance: dg.DagsterInstance,
    checkpoints: Sequence[str],
    tasks: Sequence[str],
    askable: Mapping[str, Set[str]],
) -> list[str]:
    """Partitions, as ``asset[key]``, that are at work, or are missing though nothing they need has failed.

    Parameters
    ----------
    askable
        Partitions by asset that the automation has not asked for yet. With no run or backfill at work, others that are
        missing were asked for in vain: it was canceled or deleted, and is not asked for again.
    """
    found: list[str] = []
    stopped: set[tuple[str, str]] = set()
    cells = [Cell(c, t) for c in checkpoints for t in tasks]
    for asset, parents in _BEFORE.items():
        partitions = graph.get(dg.AssetKey(asset)).partitions_def
        keys = list(checkpoints) if partitions == CHECKPOINT else [str(cell.key) for cell in cells]
        states = instance.get_status_by_partition(dg.AssetKey(asset), keys, partitions) or {}
        for key in keys:
            state = states.get(key)
            name = state.value if state is not None else "MISSING"
            inputs = {(parent, part) for parent in parents for part in (key, key.split("|")[0])}
            in_vain = asset in askable and key not in askable[asset]
            if name == "FAILED" or (name == "MISSING" and (in_vain or inputs & stopped)):
                stopped.add((asset, key))
            elif name != "MATERIALIZED":
                found.append(f"{asset}[{key}]")
    return found
