"""What the label assets ask of `simmerge_core.labels`, and how they keep what was scored when something failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import polars as pl

from simmerge_core.catalog import Catalog
from simmerge_core.errors import CheckpointError, EvaluationError
from simmerge_core.evaluation import EvaluationStore, check_task
from simmerge_core.labels import LabelFailures, design, design_plans, designed_configurations, within_budget
from simmerge_core.plans import Plan
from simmerge_core.tables import MERGE_LABELS, DataRoot
from simmerge_pipeline.contents import held_features, held_labels
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


def scoring(
    root: DataRoot,
    prints: Mapping[str, str],
    compute: ComputeResource,
    progress: Progress,
    changed: Mapping[str, CheckpointError],
) -> dict[str, Any]:
    """Options that all scoring shares: the one store, the processes, the device, and what must not be scored.

    Scores are kept by the fingerprints of the manifests, so that a checkpoint whose weights were replaced since would
    leave wrong ones for ever, in the merges of others too.
    """
    return {
        "store": EvaluationStore(root.root / "evaluations"),
        "fingerprints": prints,
        "workers": compute.processes,
        "device": compute.device,
        "unusable": {checkpoint: str(error) for checkpoint, error in changed.items()},
        "progress": progress,
    }


def scores_per_merge(catalog: Catalog, task: str) -> int:
    """Rows of one merge on a task: benchmarks × metrics × item sets × seeds."""
    return sum(len(b.metrics) * len(b.item_sets) * len(b.seeds) for b in catalog.task(task).benchmarks)


def designed_by_owner(
    catalog: Catalog, root: DataRoot, prints: Mapping[str, str], cells: Sequence[Cell]
) -> dict[str, pl.DataFrame]:
    """Designed labels (columns of `labels.design`) by partition key, within the budget of the partition's checkpoint.

    A partition labels the pairs whose features it holds, and those that the other one's partition holds but has been
    labelled without. The budget is the checkpoint's, over all tasks: a pair is merged once for all of them.
    """
    designed, settings = design(catalog, sorted(set(prints) - {catalog.base.id})), catalog.labels
    features = {task: held_features(root, task, prints) for task in catalog.task_ids}
    labelled = held_labels(root, prints)
    pairs_with_labels = {_sorted(owner, other) for owner, other, _ in labelled}
    pairs_of = _pairs_of(designed)
    parts = {}
    for owner in dict.fromkeys(cell.checkpoint for cell in cells):
        own = {task: {_sorted(owner, d) for c, d in held if c == owner} for task, held in features.items()}
        asked = set().union(*(own[task] & pairs_of.get(task, set()) for task in own))
        chosen = within_budget(asked, pairs_with_labels, budget=settings.merges_per_checkpoint, salt=settings.salt)
        for cell in cells:
            if cell.checkpoint == owner:
                left = _left_by_others(catalog, root, cell, cells, features[cell.task], labelled)
                wanted = sorted((chosen & own[cell.task]) | (left & pairs_of.get(cell.task, set())))
                rows = pl.DataFrame(wanted, schema={"a": pl.String, "b": pl.String}, orient="row")
                of_task = designed.filter(pl.col("task") == cell.task)
                parts[str(cell.key)] = of_task.join(rows, on=["a", "b"], how="semi", maintain_order="left")
    return parts


def _left_by_others(
    catalog: Catalog,
    root: DataRoot,
    cell: Cell,
    cells: Sequence[Cell],
    features: Set[tuple[str, str]],
    labelled: Set[tuple[str, str, str]],
) -> set[tuple[str, str]]:
    """Pairs whose features another partition holds that has been labelled without them, though it had budget left.

    It was labelled before it held them: a backfill by hand gave them to it while this checkpoint was on its way.
    """
    budget, task, found = catalog.labels.merges_per_checkpoint, cell.task, set()
    for other in (c for c, d in features if d == cell.checkpoint and (cell.checkpoint, c) not in features):
        spent = {d for c, d, _ in labelled if c == other}
        written = root.exists(MERGE_LABELS, checkpoint=other, task=task) and Cell(other, task) not in cells
        if written and (other, cell.checkpoint, task) not in labelled and (budget is None or len(spent) < budget):
            found.add(_sorted(other, cell.checkpoint))
    return found


def _pairs_of(designed: pl.DataFrame) -> dict[str, set[tuple[str, str]]]:
    """Designed pairs a < b by task."""
    found: dict[str, set[tuple[str, str]]] = {}
    for a, b, task in designed.select("a", "b", "task").iter_rows():
        found.setdefault(task, set()).add((a, b))
    return found


def _sorted(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)


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
