"""A backfill each night, for those who do not let the automation use the accelerator whenever something is missing."""

# No postponed annotations here: Dagster reads the types of `context` and `config` from the annotations themselves.

import os
from typing import Any

import dagster as dg
from pydantic import Field

from simmerge_core.errors import SimMergeError
from simmerge_pipeline.asset_options import ACCELERATOR
from simmerge_pipeline.driver import Budget
from simmerge_pipeline.event_log import written_in_batches
from simmerge_pipeline.executors import chosen_executor
from simmerge_pipeline.materialize import materialize_all
from simmerge_pipeline.plain_metadata import bullets, rounded
from simmerge_pipeline.progress import logged
from simmerge_pipeline.resources import CatalogResource, ComputeResource, DataRootResource

HOURS = "SIMMERGE_NIGHTLY_GPU_HOURS"


class BackfillConfig(dg.Config):
    """What a backfill may spend."""

    gpu_hours: float = Field(default=8.0, gt=0, description="hours of steps that want the accelerator, in all")
    assets: list[str] = Field(default=[], description="only these, such as pairwise_features; empty: all")


# In no pool: the runs that it starts take the slots, and would wait for ever for one that this step held.
@dg.op(tags=ACCELERATOR["op_tags"])
def backfill_what_is_missing(
    context: dg.OpExecutionContext,
    config: BackfillConfig,
    catalog: CatalogResource,
    data: DataRootResource,
    compute: ComputeResource,
) -> None:
    """Materialize what is missing or out of date, in the graph's order, until the budget is spent.

    Every range of partitions is a run of its own, as if it had been launched by hand. A backfill that was killed loses
    what it was at, nothing else.
    """
    budget = Budget(3600.0 * config.gpu_hours)
    with written_in_batches(context.instance) as instance:
        summary = materialize_all(
            catalog=catalog.load().path,
            data_root=data.root.root,
            workers=compute.workers,
            device=compute.device,
            assets=config.assets or None,
            budget=budget,
            progress=logged(context),
            instance=instance,
        )
    for id in summary.changing:
        context.log.info(f"Checkpoint {id!r} is still changing and was left for another time.")
    computed, left = (sum(getattr(a, name) for a in summary.assets) for name in ("computed", "left"))
    hours = f"{budget.spent / 3600:.2f} of {config.gpu_hours:g} hours"
    context.log.info(f"{computed} partitions materialized, {left} left; {hours} spent.")
    context.add_output_metadata(
        {
            "materialized": _counts({a.name: a.computed for a in summary.assets if a.computed}),
            "left": _counts({a.name: a.left for a in summary.assets if a.left}),
            "hours": rounded(budget.spent / 3600.0),
        }
    )
    if not summary.ok:
        raise dg.Failure(
            " ".join(f"{place}: {text}" for place, text in list(summary.failed.items())[:8]), allow_retries=False
        )


def _counts(partitions: dict[str, int]) -> dg.MarkdownMetadataValue:
    return bullets(f"`{asset}`: {count}" for asset, count in partitions.items())


# A process of its own for the only step would be started for nothing.
@dg.job(
    description="Materialize what is missing or out of date, in the graph's order, within a budget of GPU hours.",
    executor_def=chosen_executor() or dg.in_process_executor,
)
def backfill() -> None:
    """One op, which starts the runs."""
    backfill_what_is_missing()


def config_of_a_night(context: dg.ScheduleEvaluationContext | None = None) -> dict[str, Any]:
    """Run config of the schedule: the hours that SIMMERGE_NIGHTLY_GPU_HOURS names, if it is set.

    Raises
    ------
    SimMergeError
        If it is no number above 0; the tick fails.
    """
    given = os.environ.get(HOURS)
    if not given:
        return {}
    try:
        hours = float(given)
    except ValueError:
        hours = 0.0
    if not 0.0 < hours < float("inf"):
        raise SimMergeError(f"{HOURS} is {given!r}: give a number of hours above 0, such as 8.")
    return {"ops": {backfill_what_is_missing.name: {"config": {"gpu_hours": hours}}}}


nightly_backfill = dg.ScheduleDefinition(
    name="nightly_backfill",
    job=backfill,
    run_config_fn=config_of_a_night,
    cron_schedule="0 22 * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Backfills what is missing at night. Switch the sensor `automation` off and this on where the "
    "accelerator has other work by day; SIMMERGE_NIGHTLY_GPU_HOURS says how many GPU hours a night may take (8).",
)
