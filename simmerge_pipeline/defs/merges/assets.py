"""Merge requests: plans ranked without merging, the best one executed, and how it and its rivals score."""

# No postponed annotations here: Dagster reads the types of `context` and `config` from the annotations themselves.

from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from simmerge_core.evaluation import check_task
from simmerge_core.storage import local_folder
from simmerge_core.tables import MERGE_OUTCOMES, MERGE_PLANS
from simmerge_pipeline import checks
from simmerge_pipeline.asset_options import (
    ACCELERATOR,
    AFTER_INPUTS,
    ONE_RUN,
    OWNERS,
    WHEN_INPUTS_EXIST,
    WHEN_INPUTS_EXIST_BUT_BANDIT,
)
from simmerge_pipeline.bandits import drawn, plans_by_bandit, ready_bandit
from simmerge_pipeline.contents import changed_since, fingerprints, refuse_changed
from simmerge_pipeline.label_requests import kept_rows, scoring
from simmerge_pipeline.lineage import lineage_metadata
from simmerge_pipeline.partition_run import PartitionRun
from simmerge_pipeline.partitions import MERGE_REQUEST
from simmerge_pipeline.requests import (
    INTERVALS,
    best_plan,
    catalog_pool,
    comparable,
    outcome_rows,
    plans_by_selector,
    rivals,
    score_folder,
)
from simmerge_pipeline.resources import CatalogResource, ComputeResource, DataRootResource
from simmerge_pipeline.stamps import stamped
from simmerge_pipeline.table_metadata import definition_metadata, written_metadata
from simmerge_pipeline.training import labelled_pairs


@dg.asset(
    deps=["selector", "bandit"],
    partitions_def=MERGE_REQUEST,
    group_name="merges",
    kinds={"polars", "parquet"},
    owners=OWNERS,
    tags={"stage": "merges"},
    code_version="2",
    backfill_policy=ONE_RUN,
    automation_condition=WHEN_INPUTS_EXIST_BUT_BANDIT,
    metadata=definition_metadata(MERGE_PLANS),
    check_specs=checks.specs("merge_plans", checks.NO_NAN),
)
def merge_plans(context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource) -> Iterator[Any]:
    """One ranked plan of a merge request: order, operators, predicted utility with its interval; nothing is merged.

    Under a bandit's policy the operators of the first plan are drawn, one round for each step.
    """
    from simmerge_core.planning import target_of

    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    prints = fingerprints(root, declared)
    features, _ = labelled_pairs(root, prints)
    for number, id in enumerate(run.keys):
        with run.attempt(id):
            request = declared.merge_request(id)
            asked = catalog_pool(declared, request, prints)
            pool = comparable(features, asked, request.targets)
            late = [c for c in asked if c not in pool]
            if late:
                context.log.warning(f"Merge request {id!r} is planned without {', '.join(late)}: features are missing.")
            target, piece = target_of(request.targets, combine=request.how, weights=request.weights), run.piece
            if request.policy == "selector":
                ranked, about = plans_by_selector(root, request, features, pool, target, piece(number, len(run.keys)))
            else:
                online, _ = ready_bandit(declared, root, prints, request.actions, request.policy, run.progress)
                ranked = plans_by_bandit(online, request, features, pool, target, piece(number, len(run.keys)))
                about = drawn(online, id)
            run.verdicts.add("no_nan", id, checks.nans(ranked, nullable=INTERVALS), examined=ranked.height)
            path = root.write(MERGE_PLANS, ranked, merge_request=id)
            about = {"best plan": str(best_plan(ranked)), "policy": request.policy, "left out": late, **about}
            stamp = stamped("merge_plans", declared, root, id)
            run.wrote(id, {**written_metadata(MERGE_PLANS, ranked, path), **stamp, **about})
    yield from run.results(metadata=lineage_metadata(MERGE_PLANS))


@dg.asset(
    deps=["merge_plans"],
    partitions_def=MERGE_REQUEST,
    group_name="merges",
    kinds={"safetensors", "huggingface"},
    owners=OWNERS,
    tags={"stage": "merges"},
    code_version="1",
    backfill_policy=ONE_RUN,
    automation_condition=WHEN_INPUTS_EXIST,
)
def merged_checkpoints(
    context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource, compute: ComputeResource
) -> Iterator[Any]:
    """A Hugging Face folder of a request's best plan, loadable as it is, with model card and provenance."""
    from simmerge_core.merging import execute_plan_from_catalog

    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    prints = fingerprints(root, declared)
    for number, id in enumerate(run.keys):
        with run.attempt(id):
            ranked = root.read(MERGE_PLANS, merge_request=id)
            plan = best_plan(ranked)
            best = ranked.filter(pl.col("rank") == 1).row(0, named=True)
            refuse_changed(changed_since(root, declared, prints, prints), *plan.checkpoints, declared.base.id)
            merged = execute_plan_from_catalog(
                plan,
                declared,
                root.folder("merged_checkpoints", merge_request=id),
                device=compute.device,
                fingerprints={c: prints[c] for c in plan.checkpoints},
                base_fingerprint=prints[declared.base.id],
                provenance={
                    "merge_request": id,
                    "request": declared.merge_request(id).model_dump(mode="json"),
                    "predicted": {n: best[n] for n in ("predicted_utility", "uncertainty")},
                },
                progress=run.piece(number, len(run.keys)),
            )
            facts = {
                "plan": str(plan),
                "bytes": merged.bytes,
                "parameters": merged.parameters,
                "fingerprint": merged.fingerprint,
            }
            place = {"dagster/uri": merged.path.as_uri(), "folder": dg.MetadataValue.path(str(merged.path))}
            run.wrote(id, {**facts, **place, **stamped("merged_checkpoints", declared, root, id)})
    yield from run.results()


@dg.asset(
    deps=["merged_checkpoints"],
    partitions_def=MERGE_REQUEST,
    group_name="merges",
    kinds={"torch", "parquet"},
    owners=OWNERS,
    tags={"stage": "merges"},
    code_version="1",
    backfill_policy=ONE_RUN,
    automation_condition=AFTER_INPUTS,
    metadata=definition_metadata(MERGE_OUTCOMES),
    check_specs=checks.specs("merge_outcomes", {**checks.NO_NAN, **checks.EXECUTED}),
    **ACCELERATOR,
)
def merge_outcomes(
    context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource, compute: ComputeResource
) -> Iterator[Any]:
    """The utility of one model of a merge request: the merged folder, each baseline plan, each parent, the base."""
    from simmerge_core.labels import score_plans
    from simmerge_core.merging import CONFIG

    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    prints = fingerprints(root, declared)
    for number, id in enumerate(run.keys):
        with run.attempt(id):
            request, ranked = declared.merge_request(id), root.read(MERGE_PLANS, merge_request=id)
            for task in request.targets:
                check_task(declared.task(task))
            models = rivals(declared, root, request, ranked, prints)
            wanted = [(model.plan, task) for model in models for task in request.targets]
            changed, piece = changed_since(root, declared, prints, prints), run.piece(number, len(run.keys))
            options = scoring(root, prints, compute, piece, changed)
            scores, failures = kept_rows(partial(score_plans, wanted, declared, **options))
            failures.raise_for(None, otherwise=bool(failures.checkpoints))
            rows = outcome_rows(models, request.targets, scores)
            folder = root.folder("merged_checkpoints", merge_request=id)
            with local_folder(folder, last=CONFIG) as place:
                differing = score_folder(place, declared, request.targets, rows, device=compute.device)
            run.verdicts.add("folder_scores_as_in_memory", id, differing)
            run.verdicts.add(
                "no_nan", id, checks.nans(rows, nullable={"stderr", "predicted_utility"}), examined=rows.height
            )
            path = root.write(MERGE_OUTCOMES, rows, merge_request=id)
            run.wrote(
                id, {**written_metadata(MERGE_OUTCOMES, rows, path), **stamped("merge_outcomes", declared, root, id)}
            )
    yield from run.results()
