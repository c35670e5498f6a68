"""A merge request that is submitted from the UI: an entry of the catalog file, and at once a partition."""

# No postponed annotations here: Dagster reads the types of `context` and `config` from the annotations themselves.

from typing import Literal

import dagster as dg
from pydantic import Field

from simmerge_core.catalog.edit import add_merge_request
from simmerge_core.errors import SimMergeError
from simmerge_pipeline.partitions import MERGE_REQUEST, add_partitions
from simmerge_pipeline.resources import CatalogResource


class MergeRequestConfig(dg.Config):
    """Which checkpoints may be merged for which tasks, and who chooses how."""

    id: str = Field(description="a new id: letters, digits, '_', '.' and '-'")
    tasks: list[str] = Field(description="target tasks of the catalog")
    weights: list[float] | None = Field(
        default=None, description="one per task, for a weighted mean; the tasks count alike when null"
    )
    how: Literal["mean", "min"] = Field(default="mean", description="several tasks count by their mean or their least")
    k: int = Field(default=2, description="how many checkpoints to merge")
    checkpoints: list[str] = Field(default=[], description="those that may be merged; all of the catalog when empty")
    actions: str = Field(default="extended", description="action set: the operators to choose among")
    policy: Literal["selector", "lints", "linucb"] = Field(
        default="selector", description="who chooses the operators: the trained selector, or a bandit that learns"
    )
    top: int = Field(default=20, description="how many plans to keep")


@dg.op(tags={"stage": "catalog"})
def declare_merge_request(context: dg.OpExecutionContext, config: MergeRequestConfig, catalog: CatalogResource) -> None:
    """Add the request to the catalog file, and its partition; whatever is wrong with it, nothing is changed."""
    entry = {**config.model_dump(), "checkpoints": config.checkpoints or "all"}
    try:
        submitted = add_merge_request(catalog.load_as_it_is().path, entry)
    except SimMergeError as error:
        # What the user has to repair does not repair itself.
        raise dg.Failure(str(error), allow_retries=False) from None
    # The sensor would add it too, half a minute later; it is also missing if an earlier submission was killed here.
    add_partitions(context.instance, str(MERGE_REQUEST.name), [config.id])
    file, written = submitted.catalog.path, submitted.written
    if submitted.new:
        context.log.info(f"Added merge request {config.id!r} to {file}: {written}.")
    else:
        context.log.info(f"Catalog {file} declares the same merge request {config.id!r} already: nothing is changed.")
    context.add_output_metadata(
        {"catalog": dg.MetadataValue.path(file), "merge_request": dg.MetadataValue.json(written), "new": submitted.new}
    )


_EXAMPLE = MergeRequestConfig(id="my-request", tasks=["math"])
"""What the launchpad shows to begin with: every setting, for a task of the demo catalog."""


@dg.job(
    description="Submits a merge request: adds it to the catalog file and to the partitions of merge_request, like an "
    "entry that is written by hand; what is missing of it is then materialized by the automation sensor.",
    config={"ops": {"declare_merge_request": {"config": _EXAMPLE.model_dump()}}},
    executor_def=dg.in_process_executor,
    tags={"stage": "catalog"},
)
def submit_merge_request() -> None:
    """One step."""
    declare_merge_request()
