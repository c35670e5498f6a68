"""Active labelling: a day's budget of merges goes to the pairs whose labels tell most."""

# No postponed annotations here: Dagster reads the types of `context` and `config` from the annotations themselves.

from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from simmerge_core.errors import CatalogError
from simmerge_core.labels import label_pairs
from simmerge_core.tables import ACTIVE_LABELS
from simmerge_pipeline import checks
from simmerge_pipeline.actions import labelled_actions
from simmerge_pipeline.asset_options import ACCELERATOR, ONE_RUN, OWNERS
from simmerge_pipeline.bandits import day_so_far, merges_of, not_over, pairs_worth_labelling
from simmerge_pipeline.contents import changed_since, fingerprints
from simmerge_pipeline.label_requests import kept_rows, scoring
from simmerge_pipeline.partition_run import PartitionRun
from simmerge_pipeline.partitions import DAY
from simmerge_pipeline.plain_metadata import bullets
from simmerge_pipeline.resources import CatalogResource, ComputeResource, DataRootResource
from simmerge_pipeline.table_metadata import definition_metadata, written_metadata


@dg.asset(
    deps=[
        dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in ("pairwise_features", "merge_labels")
    ],
    partitions_def=DAY,
    group_name="labels",
    kinds={"torch", "parquet"},
    owners=OWNERS,
    tags={"stage": "labels"},
    code_version="1",
    backfill_policy=ONE_RUN,
    metadata=definition_metadata(ACTIVE_LABELS),
    check_specs=checks.specs("active_labels", checks.NO_NAN),
    **ACCELERATOR,
)
def active_labels(
    context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource, compute: ComputeResource
) -> Iterator[Any]:
    """The utility of one merge that was chosen beyond the design, because its label tells most about all actions.

    `labels.daily_merges` in the catalog is the day's budget. A day that is materialized again spends what is left of
    it; a day that is over spends nothing any more.
    """
    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    prints, actions = fingerprints(root, declared), labelled_actions(declared)
    for number, day in enumerate(run.keys):
        with run.attempt(day):
            before = day_so_far(root, day)
            left = declared.labels.daily_merges - merges_of(before) if not_over(day) else 0
            pairs, told = pairs_worth_labelling(declared, root, prints, actions, budget=left)
            changed, piece = changed_since(root, declared, prints, prints), run.piece(number, len(run.keys))
            options = scoring(root, prints, compute, piece, changed)
            rows, failures = kept_rows(partial(label_pairs, pairs, actions, declared, **options))
            failures.raise_for(None, otherwise=bool(pairs.height) and rows.is_empty())
            if failures.error is not None:  # what could be labelled is kept
                context.log.warning(str(failures.error))
            rows = pl.concat([before, rows.select(before.columns)])
            run.verdicts.add("no_nan", day, checks.nans(rows, nullable={"stderr"}), examined=rows.height)
            path = root.write(ACTIVE_LABELS, rows, day=day)
            run.wrote(day, {**written_metadata(ACTIVE_LABELS, rows, path), "pairs": bullets(told)})
    yield from run.results()


active_labelling = dg.define_asset_job(
    "active_labelling",
    selection=["active_labels"],
    description="Label the pairs that tell most, for the day's budget (labels.daily_merges in the catalog).",
)


@dg.schedule(
    job=active_labelling,
    cron_schedule="30 1 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Spends labels.daily_merges merges a day on the most informative pairs; skips while that is 0.",
)
def daily_labels(context: dg.ScheduleEvaluationContext, catalog: CatalogResource) -> dg.RunRequest | dg.SkipReason:
    """One run a day, of the partition of that day."""
    if not catalog.exists:
        return dg.SkipReason(f"There is no catalog {catalog.path} yet: `make demo` trains one.")
    try:
        budget = catalog.load_as_it_is().labels.daily_merges
    except CatalogError as error:
        context.log.error(str(error))
        raise dg.Failure(str(error)) from error
    if not budget:
        return dg.SkipReason("labels.daily_merges is 0: set it in the catalog to label beyond the design.")
    day = context.scheduled_execution_time.strftime("%Y-%m-%d")
    return dg.RunRequest(run_key=day, partition_key=day)
