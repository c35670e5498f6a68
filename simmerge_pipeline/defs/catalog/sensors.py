"""What is new in the catalog becomes partitions; what is missing in partitions becomes backfills."""

from __future__ import annotations

import dagster as dg

from simmerge_core.catalog import Catalog
from simmerge_core.errors import CatalogError
from simmerge_pipeline.partitions import CHECKPOINT, MERGE_REQUEST, TASK
from simmerge_pipeline.resources import CatalogResource

_NAMES = ("checkpoint", "task", "merge_request")


def declared_keys(catalog: Catalog) -> dict[str, list[str]]:
    """Partition keys that the catalog declares, by the name of the dynamic partitions definition."""
    return {
        "checkpoint": [catalog.base.id, *catalog.checkpoint_ids],
        "task": list(catalog.task_ids),
        "merge_request": [request.id for request in catalog.merge_requests],
    }


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Finds checkpoints, tasks and merge requests that are new in the catalog and adds their partitions; "
    "a catalog that does not parse fails the tick and leaves everything as it was.",
)
def catalog_sensor(context: dg.SensorEvaluationContext, catalog: CatalogResource) -> dg.SensorResult | dg.SkipReason:
    """Add partitions for new catalog entries; partitions are never removed here, since results belong to them."""
    known_partitions = {name: set(context.instance.get_dynamic_partitions(name)) for name in _NAMES}
    if not catalog.exists and not any(known_partitions.values()):
        return dg.SkipReason(f"There is no catalog {catalog.path} yet: `make demo` trains one.")
    try:
        declared = declared_keys(catalog.load_as_it_is())
    except CatalogError as error:
        context.log.error(str(error))  # the tick's log, which the UI opens, does not hold what is raised
        raise
    requests = []
    for partitions in (CHECKPOINT, TASK, MERGE_REQUEST):
        name = str(partitions.name)
        new = [key for key in declared[name] if key not in known_partitions[name]]
        if new:
            requests.append(partitions.build_add_request(new))
            context.log.info(f"New in the catalog, added to the partitions of {name}: {', '.join(new)}.")
    if not requests:
        return dg.SkipReason("The catalog declares nothing new.")
    return dg.SensorResult(dynamic_partitions_requests=requests)


automation = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    emit_backfills=True,
    description="Turns missing partitions into backfills, in the graph's order: a growing catalog computes itself.",
)
