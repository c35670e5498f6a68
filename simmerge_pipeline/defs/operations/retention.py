"""Caches that nobody asks for any more are removed, weekly or by hand."""

# No postponed annotations here: Dagster reads the types of `context` and `config` from the annotations themselves.

import time

import dagster as dg
from pydantic import Field

from simmerge_core.evaluation import EvaluationStore
from simmerge_core.retention import expendable, remove
from simmerge_pipeline.resources import CatalogResource, DataRootResource


class RetentionConfig(dg.Config):
    """How long caches are kept."""

    keep_days: float = Field(default=30.0, ge=1.0, description="age in days from which an unused cache is removed")
    dry_run: bool = Field(default=False, description="only say what would be removed")


@dg.op
def remove_unused_caches(
    context: dg.OpExecutionContext, config: RetentionConfig, catalog: CatalogResource, data: DataRootResource
) -> None:
    """Remove probe caches of checkpoints and tasks that left the catalog, models of experiments, and leftovers.

    Results stay. The store of evaluations is not shortened, its segments are merged into one.
    """
    # As it is: a catalog that does not parse must not look like one that has lost its checkpoints.
    found = expendable(data.root, catalog.load_as_it_is(), keep_days=config.keep_days, now=time.time())
    for each in found:
        context.log.info(f"{each.path} ({each.bytes:,} bytes, {each.days:.0f} days old): {each.why}.")
    freed = 0 if config.dry_run else remove(found)
    if not config.dry_run:
        EvaluationStore(data.root.root / "evaluations").compact()
    context.log.info(f"{len(found)} caches, {freed:,} bytes freed.")
    context.add_output_metadata({"caches": len(found), "bytes freed": freed, "dry run": config.dry_run})


@dg.job(description="Remove caches that nothing in the catalog asks for; results stay.")
def clear_caches() -> None:
    """One op."""
    remove_unused_caches()


weekly_retention = dg.ScheduleDefinition(
    name="weekly_retention",
    job=clear_caches,
    cron_schedule="0 4 * * 0",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Removes unused caches on Sundays; the job's config says after how many days.",
)
