"""What the label assets ask of `simmerge_core.labels`, and how they keep what was scored when something failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from simmerge_core.catalog import Catalog
from simmerge_core.errors import EvaluationError
from simmerge_core.evaluation import EvaluationStore, check_task
from simmerge_core.labels import LabelFailures, design, design_plans, designed_configurations
from simmerge_core.plans import Plan
from simmerge_core.tables import DataRoot
from simmerge_pipeline.partition_run import PartitionRun
from simmerge_pipeline.partitions import Cell
from simmerge_pipeline.progress import Progress
from simmerge_pipeline.resources import ComputeResource


@dataclass(frozen=True)
class Failures:
    """What could not be scored, beside everything that was."""

    error: LabelFailures | None = None

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Ids of the checkpoints at fault."""
        return self.error.checkpoints if self.error is not None else ()

    def raise_for(self, checkpoint: str | None, *, otherwise: bool) -> None:
        """Raise the failures if this checkpoint is at fault, or if `otherwise` says that the partition suffers."""
        if checkpoint in self.checkpoints or otherwise:
            raise self.error or EvaluationError("Nothing was scored: the task has no benchmark that gives scores.")


def kept_rows(score: Callable[[], pl.DataFrame]) -> tuple[pl.DataFrame, Failures]:
    """The rows that `score` gives, and what it could not score."""
    try:
        return score(), Failures()
    except LabelFailures as error:
        return error.frame, Failures(error)


def refuse_unsound_tasks(run: PartitionRun, catalog: Catalog, keys: Mapping[str, Sequence[str]]) -> None:
    """Fail the partitions of each task whose benchmarks cannot be scored, before anything is merged for it.

    Parameters
    ----------
    keys
        Partition keys by task; also those that hold no work, so that none is written from a wrong definition.
    """
    for task, concerned in keys.items():
        with run.attempt(*concerned):
            check_task(catalog.task(task))


def scoring(root: DataRoot, prints: Mapping[str, str], compute: ComputeResource, progress: Progress) -> dict[str, Any]:
    """Options that all scoring shares: the one store, the processes, the device."""
    return {
        "store": EvaluationStore(root.root / "evaluations"),
        "fingerprints": prints,
        "workers": compute.processes,
        "device": compute.device,
        "progress": progress,
    }


def scores_per_merge(catalog: Catalog, task: str) -> int:
    """Rows of one merge on a task: benchmarks × metrics × item sets × seeds."""
    return sum(len(b.metrics) * len(b.item_sets) * len(b.seeds) for b in catalog.task(task).benchmarks)


def designed_by_owner(
    catalog: Catalog, prints: Mapping[str, str], held: Mapping[str, set[tuple[str, str]]], cells: Sequence[Cell]
) -> dict[str, pl.DataFrame]:
    """Designed labels (columns of `labels.design`) by partition key: those whose pair the partition's features hold.

    Parameters
    ----------
    held
        (owner, other) pairs of `pairwise_features` by task.
    """
    designed = design(catalog, sorted(set(prints) - {catalog.base.id}))
    parts = {}
    for cell in cells:
        others = [other for owner, other in held[cell.task] if owner == cell.checkpoint]
        own = (pl.col("a") == cell.checkpoint) & pl.col("b").is_in(others)
        own |= (pl.col("b") == cell.checkpoint) & pl.col("a").is_in(others)
        parts[str(cell.key)] = designed.filter((pl.col("task") == cell.task) & own)
    return parts


def designed_plans(catalog: Catalog, root: DataRoot, prints: Mapping[str, str], task: str) -> list[Plan]:
    """Plans on a task that the design says, over the checkpoints that are there."""
    return design_plans(catalog, prints, task)


def further_plans(catalog: Catalog, root: DataRoot, prints: Mapping[str, str], task: str) -> list[Plan]:
    """Plans on a task that the report compares and that are not labelled yet: the selectors' and the baselines'.

    Of the task's own configurations under the paper's actions; under the extended actions, whose target is the mean
    over the parents' tasks, of every task's configurations that hold a checkpoint of this one's domain. The design and
    the selectors alone say which, so a partition asks for the same plans whether the others are there or not.
    """
    from simmerge_core.analysis import plans_needed

    designed = designed_configurations(catalog, prints)
    return [plan for plan, _ in plans_needed(root, catalog, tasks=[task], designed=designed)]
