"""Utilities: of single checkpoints, of merges of two, of plans of several. All share one store of evaluations."""

# No postponed annotations here: Dagster reads the types of `context` and `config` from the annotations themselves.

from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from simmerge_core.labels import label_pairs, label_plans, score_standalone
from simmerge_core.labels.pairs import DESIGN_SCHEMA
from simmerge_core.tables import MERGE_LABELS, PAIRWISE_FEATURES, PLAN_LABELS, STANDALONE_SCORES
from simmerge_pipeline import checks
from simmerge_pipeline.actions import labelled_actions
from simmerge_pipeline.asset_options import (
    ACCELERATOR,
    AFTER_ARRIVALS,
    AFTER_INPUTS,
    ONE_RUN,
    OWNERS,
    WHEN_INPUTS_EXIST,
)
from simmerge_pipeline.contents import changed_since, fingerprint_of, fingerprints, refuse_changed, require_partition
from simmerge_pipeline.label_requests import (
    designed_by_owner,
    designed_plans,
    further_plans,
    kept_rows,
    refuse_unsound_tasks,
    scores_per_merge,
    scoring,
)
from simmerge_pipeline.partition_run import PartitionRun
from simmerge_pipeline.partitions import CHECKPOINT_TASK, TASK
from simmerge_pipeline.resources import CatalogResource, ComputeResource, DataRootResource
from simmerge_pipeline.stamps import stamped, stamps_at_start
from simmerge_pipeline.table_metadata import definition_metadata, written_metadata


@dg.asset(
    deps=["checkpoints"],
    partitions_def=CHECKPOINT_TASK,
    group_name="labels",
    kinds={"torch", "parquet"},
    owners=OWNERS,
    tags={"stage": "labels"},
    code_version="1",
    backfill_policy=ONE_RUN,
    automation_condition=WHEN_INPUTS_EXIST,
    metadata=definition_metadata(STANDALONE_SCORES),
    check_specs=checks.specs("standalone_scores", checks.NO_NAN),
    **ACCELERATOR,
)
def standalone_scores(
    context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource, compute: ComputeResource
) -> Iterator[Any]:
    """The utility of one unmerged model on one benchmark, metric, item set and seed of the task."""
    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    prints = fingerprints(root, declared)
    changed = changed_since(root, declared, prints, prints)
    options = scoring(root, prints, compute, run.progress, changed)
    with run.attempt(*run.keys):
        for cell in run.cells:
            with run.attempt(cell.key):
                fingerprint_of(prints, cell.checkpoint)
                refuse_changed(changed, cell.checkpoint)
        refuse_unsound_tasks(run, declared, run.keys_of_task)
        good = [cell for cell in run.cells if cell.key not in run.failed]
        tasks = list(dict.fromkeys(cell.task for cell in good))
        scores, failures = kept_rows(
            lambda: score_standalone(list(dict.fromkeys(cell.checkpoint for cell in good)), tasks, declared, **options)
        )
        for cell in good:
            with run.attempt(cell.key):
                part = scores.filter((pl.col("checkpoint") == cell.checkpoint) & (pl.col("task") == cell.task))
                failures.raise_for(cell.checkpoint, otherwise=part.is_empty())
                run.verdicts.add("no_nan", cell.key, checks.nans(part, nullable={"stderr"}), examined=part.height)
                path = root.write(STANDALONE_SCORES, part, checkpoint=cell.checkpoint, task=cell.task)
                stamp = stamped("standalone_scores", declared, root, cell.key)
                run.wrote(cell.key, {**written_metadata(STANDALONE_SCORES, part, path), **stamp})
    yield from run.results()


@dg.asset(
    deps=["pairwise_features"],
    partitions_def=CHECKPOINT_TASK,
    group_name="labels",
    kinds={"torch", "parquet"},
    owners=OWNERS,
    tags={"stage": "labels"},
    code_version="1",
    backfill_policy=ONE_RUN,
    automation_condition=AFTER_INPUTS,
    metadata=definition_metadata(MERGE_LABELS),
    check_specs=checks.specs("merge_labels", {**checks.NO_NAN, **checks.LABELS}),
    **ACCELERATOR,
)
def merge_labels(
    context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource, compute: ComputeResource
) -> Iterator[Any]:
    """The utility of one merge (pair and action) on one benchmark, metric, item set and seed of the task.

    The design says which pairs, and `labels.merges_per_checkpoint` how many of them one checkpoint may add; the
    partition that holds a pair's features holds its labels. Each merge is made once for all tasks of the run.
    """
    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    prints, actions = fingerprints(root, declared), labelled_actions(declared)
    stamps, changed = (
        stamps_at_start("merge_labels", declared, root, run.keys),
        changed_since(root, declared, prints, prints),
    )
    for cell in run.cells:
        with run.attempt(cell.key):
            require_partition(root, PAIRWISE_FEATURES, checkpoint=cell.checkpoint, task=cell.task)
            refuse_changed(changed, cell.checkpoint)
    refuse_unsound_tasks(run, declared, run.keys_of_task)
    designed = designed_by_owner(declared, root, prints, [cell for cell in run.cells if cell.key not in run.failed])
    with run.attempt(*designed):
        rows = pl.concat([pl.DataFrame(schema=DESIGN_SCHEMA), *designed.values()])
        rows = rows.unique(["a", "b", "task"], maintain_order=True)
        options = scoring(root, prints, compute, run.progress, changed)
        labels, failures = kept_rows(lambda: label_pairs(rows, actions, declared, **options))
        for key, wanted in designed.items():
            with run.attempt(key):
                checkpoint, task = key.split("|")
                part = labels.join(wanted.select("a", "b", "task"), on=["a", "b", "task"], how="semi")
                missing = checks.missing_labels(part, wanted, actions, scores_per_merge(declared, task))
                failures.raise_for(checkpoint, otherwise=bool(missing) and not failures.checkpoints)
                run.verdicts.add("labels_cover_actions", key, missing, examined=wanted.height * len(actions))
                run.verdicts.add("no_nan", key, checks.nans(part, nullable={"stderr"}), examined=part.height)
                path = root.write(MERGE_LABELS, part, checkpoint=checkpoint, task=task)
                about = {**stamps.get(key, {}), "pairs": wanted.height}
                run.wrote(key, {**written_metadata(MERGE_LABELS, part, path), **about})
    yield from run.results()


@dg.asset(
    deps=["selector", "standalone_scores"],
    partitions_def=TASK,
    group_name="labels",
    kinds={"torch", "parquet"},
    owners=OWNERS,
    tags={"stage": "labels"},
    code_version="1",
    backfill_policy=ONE_RUN,
    automation_condition=AFTER_ARRIVALS,
    metadata=definition_metadata(PLAN_LABELS),
    check_specs=checks.specs("plan_labels", checks.NO_NAN),
    **ACCELERATOR,
)
def plan_labels(
    context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource, compute: ComputeResource
) -> Iterator[Any]:
    """The utility of one executed plan of three or four checkpoints on the task.

    First the designed plans of the task's configurations, then those that the selectors and the baselines choose and
    that are not among them: of its own configurations, and of all that hold a checkpoint of its domain.
    """
    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    prints, stamps = fingerprints(root, declared), stamps_at_start("plan_labels", declared, root, run.keys)
    refuse_unsound_tasks(run, declared, {task: [task] for task in run.keys})
    with run.attempt(*run.keys):
        sound = [task for task in run.keys if task not in run.failed]
        for stage, plans_of in enumerate((designed_plans, further_plans)):
            wanted = [(plan, task) for task in sound for plan in plans_of(declared, root, prints, task)]
            options = scoring(root, prints, compute, run.piece(stage, 2), changed_since(root, declared, prints, prints))
            rows, failures = kept_rows(partial(label_plans, wanted, declared, **options))
            for task in sound:
                with run.attempt(task):
                    part = rows.filter(pl.col("task") == task)
                    if stage:
                        part = pl.concat([root.read(PLAN_LABELS, task=task).select(part.columns), part])
                    failures.raise_for(None, otherwise=bool(wanted) and part.is_empty())
                    path = root.write(PLAN_LABELS, part, task=task)
                    if stage:
                        run.verdicts.add("no_nan", task, checks.nans(part, nullable={"stderr"}), examined=part.height)
                        run.wrote(task, {**written_metadata(PLAN_LABELS, part, path), **stamps.get(task, {})})
    yield from run.results()
