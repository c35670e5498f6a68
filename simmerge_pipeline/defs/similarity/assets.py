"""Signals between checkpoints: inner products of weights, behaviour on probes, and the features of every pair.

A partition also reads what belongs to other checkpoints, by path through the data contract: lineage by identity keeps
an earlier partition from turning stale when a checkpoint is added, and `pairs_complete` tells what lineage cannot.
"""

# No postponed annotations here: Dagster reads the types of `context` and `config` from the annotations themselves.

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from simmerge_core.features.columns import FEATURE_VERSION
from simmerge_core.tables import CHECKPOINTS, FUNCTIONAL_SIMILARITY, PAIRWISE_FEATURES, WEIGHT_GRAM
from simmerge_pipeline import checks
from simmerge_pipeline.asset_options import AFTER_INPUTS, ONE_RUN, OWNERS
from simmerge_pipeline.contents import (
    by_owner,
    changed_since,
    fingerprint_of,
    fingerprints,
    functional_rows,
    gram_rows,
    held_features,
    held_on_task,
    held_weights,
    later_in,
    neighbours,
    opened,
    probe_records,
    recorded,
    refuse_changed,
    require_partition,
    require_record,
    task_probe_key,
    with_pairs,
)
from simmerge_pipeline.judgements import judge_features, judge_functional, judge_pairs
from simmerge_pipeline.lineage import lineage_metadata
from simmerge_pipeline.ownership import owned_others
from simmerge_pipeline.partition_run import PartitionRun
from simmerge_pipeline.partitions import CHECKPOINT, CHECKPOINT_TASK, Cell
from simmerge_pipeline.pictures import similarity_pictures
from simmerge_pipeline.resources import CatalogResource, ComputeResource, DataRootResource
from simmerge_pipeline.stamps import stamped, stamps_at_start
from simmerge_pipeline.table_metadata import definition_metadata, written_metadata


@dg.asset(
    deps=["checkpoints"],
    partitions_def=CHECKPOINT,
    group_name="similarity",
    kinds={"torch", "parquet"},
    owners=OWNERS,
    tags={"stage": "signals"},
    code_version="1",
    backfill_policy=ONE_RUN,
    automation_condition=AFTER_INPUTS,
    metadata=definition_metadata(WEIGHT_GRAM),
    check_specs=checks.specs("weight_gram", {**checks.NO_NAN, **checks.PAIRS}),
)
def weight_gram(
    context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource, compute: ComputeResource
) -> Iterator[Any]:
    """Inner products per tensor of a checkpoint with each it owns a pair with, with itself and with the base."""
    from simmerge_core.similarity import weight_gram as compute_gram

    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    prints, base = fingerprints(root, declared), declared.base.id
    changed = changed_since(root, declared, prints, prints)
    held, experts = held_weights(root, prints), set(prints) - {base, *changed}
    owned: dict[str, list[str]] = {}
    for number, c in enumerate(run.keys):
        with run.attempt(c):
            fingerprint_of(prints, c)
            refuse_changed(changed, c, base)
            later = later_in(run.keys, number)
            owned[c] = [] if c == base else owned_others(c, present=experts, held=held, later=later)
    with run.attempt(*owned):
        folders = opened(declared, {*owned, *(d for others in owned.values() for d in others)} - {base})
        rows = compute_gram(
            folders,
            opened(declared, {base})[base],
            [(c, d) for c, others in owned.items() for d in others],
            fingerprints=prints,
            device=compute.device,
            progress=run.progress,
        )
        for c, others in owned.items():
            with run.attempt(c):
                part = rows.filter(pl.col("checkpoint") == c)
                run.verdicts.add("no_nan", c, checks.nans(part), examined=part.height)
                path = root.write(WEIGHT_GRAM, part, checkpoint=c)
                stamp = stamped("weight_gram", declared, root, c)
                run.wrote(c, {**written_metadata(WEIGHT_GRAM, part, path), **stamp, "pairs": len(others)})
    judge_pairs(run.verdicts, {c: c for c in run.keys}, experts, held_weights(root, prints))
    yield from run.results()


@dg.asset(
    deps=["probe_activations"],
    partitions_def=CHECKPOINT_TASK,
    group_name="similarity",
    kinds={"torch", "parquet"},
    owners=OWNERS,
    tags={"stage": "signals"},
    code_version="1",
    backfill_policy=ONE_RUN,
    automation_condition=AFTER_INPUTS,
    metadata=definition_metadata(FUNCTIONAL_SIMILARITY),
    check_specs=checks.specs(
        "functional_similarity", {**checks.NO_NAN, **checks.COSINES, **checks.DIVERGENCES, **checks.PAIRS}
    ),
)
def functional_similarity(
    context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource
) -> Iterator[Any]:
    """One metric of one pair on a task's probes (App. B.2), and the label-free signals of the pair's members."""
    from simmerge_core.similarity import functional_many, self_signals

    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    prints, base = fingerprints(root, declared), declared.base.id
    for number, (task, wanted) in enumerate(run.checkpoints_of.items()):
        keys = {c: Cell(c, task).key for c in wanted}
        with run.attempt(*keys.values()):
            records, held = probe_records(root, declared, task, prints), held_on_task(root, task, prints)
            experts = set(records) - {base}
            owned: dict[str, list[str]] = {}
            for place, c in enumerate(wanted):
                with run.attempt(keys[c]):
                    require_record(records, c, task)
                    later = later_in(wanted, place)
                    owned[c] = [] if c == base else owned_others(c, present=experts, held=held, later=later)
            rows = functional_many(records, [(c, d) for c, others in owned.items() for d in others])
            alone = {c: self_signals(record, checkpoint=c) for c, record in records.items()}
            for c, part in by_owner(rows, owned).items():
                with run.attempt(key := keys[c]):
                    full = pl.concat([part, *(alone[d] for d in (c, *owned[c]))])
                    judge_functional(run.verdicts, key, full)
                    path = root.write(FUNCTIONAL_SIMILARITY, full, checkpoint=c, task=task)
                    stamp = stamped("functional_similarity", declared, root, key)
                    run.wrote(
                        key, {**written_metadata(FUNCTIONAL_SIMILARITY, full, path), **stamp, "pairs": len(owned[c])}
                    )
            judge_pairs(run.verdicts, keys, experts, held_on_task(root, task, prints))
        run.progress(f"behaviour on {task}", (number + 1) / len(run.checkpoints_of))
    yield from run.results()


@dg.asset(
    deps=["functional_similarity", "weight_gram"],
    partitions_def=CHECKPOINT_TASK,
    group_name="similarity",
    kinds={"polars", "parquet"},
    owners=OWNERS,
    tags={"stage": "signals"},
    code_version=f"1.{FEATURE_VERSION}",
    backfill_policy=ONE_RUN,
    automation_condition=AFTER_INPUTS,
    metadata=definition_metadata(PAIRWISE_FEATURES),
    check_specs=checks.specs(
        "pairwise_features", {**checks.NO_NAN, **checks.COSINES, **checks.DIVERGENCES, **checks.PAIRS}
    ),
)
def pairwise_features(
    context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource, compute: ComputeResource
) -> Iterator[Any]:
    """One ordered pair of checkpoints on a task with every feature of App. B.4, both orientations as rows."""
    from simmerge_core.features import pairwise_features as compute_features

    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    prints, base = fingerprints(root, declared), declared.base.id
    stamps = stamps_at_start("pairwise_features", declared, root, run.keys)
    manifests, gram = root.scan(CHECKPOINTS).collect(), gram_rows(root, prints)
    changed = changed_since(root, declared, prints, prints)
    for number, (task, wanted) in enumerate(run.checkpoints_of.items()):
        keys = {c: Cell(c, task).key for c in wanted}
        with run.attempt(*keys.values()):
            functional, held = functional_rows(root, task, prints), held_features(root, task, prints)
            compared = neighbours(functional.filter(pl.col("metric") == "kl").select("a", "b").unique().iter_rows())
            owned: dict[str, list[str]] = {}
            for place, c in enumerate(wanted):
                with run.attempt(keys[c]):
                    require_partition(root, FUNCTIONAL_SIMILARITY, checkpoint=c, task=task)
                    refuse_changed(changed, c, base)
                    later, present = later_in(wanted, place), {*compared.get(c, ())} - changed.keys()
                    owned[c] = owned_others(c, present=present, held=held, later=later)
            pairs = [(c, d) for c, others in owned.items() for d in others]
            gram = with_pairs(gram, pairs, declared, device=compute.device)
            rows = compute_features(
                functional.drop("checkpoint"), gram, manifests=manifests, pairs=pairs, base=base,
                probe_key=task_probe_key(declared, task),
            )  # fmt: skip
            for c, part in by_owner(rows, owned).items():
                with run.attempt(key := keys[c]):
                    judge_features(run.verdicts, key, part)
                    path = root.write(PAIRWISE_FEATURES, part, checkpoint=c, task=task)
                    about = {**stamps.get(key, {}), "pairs": len(owned[c])}
                    run.wrote(key, {**written_metadata(PAIRWISE_FEATURES, part, path), **about})
            experts = set(recorded(root, task, prints)) - {base}
            judge_pairs(run.verdicts, keys, experts, held_features(root, task, prints))
        run.progress(f"features on {task}", (number + 1) / len(run.checkpoints_of))
    pictures = similarity_pictures(root.scan(PAIRWISE_FEATURES).collect())
    yield from run.results(metadata={**pictures, **lineage_metadata(PAIRWISE_FEATURES)})
