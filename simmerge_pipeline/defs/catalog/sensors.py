"""What is new in the catalog becomes partitions; what is missing in partitions becomes backfills."""

from __future__ import annotations

import json
import time
import warnings

import dagster as dg

from simmerge_core.catalog import Catalog
from simmerge_core.catalog.discovery import last_change
from simmerge_core.errors import CatalogError
from simmerge_pipeline.partitions import CHECKPOINT, MERGE_REQUEST, TASK, Cell
from simmerge_pipeline.resources import CatalogResource

_NAMES = ("checkpoint", "task", "merge_request")


def declared_keys(catalog: Catalog) -> dict[str, list[str]]:
    """Partition keys that the catalog declares, by the name of the dynamic partitions definition."""
    return {
        "checkpoint": [catalog.base.id, *catalog.checkpoint_ids],
        "task": list(catalog.task_ids),
        "merge_request": [request.id for request in catalog.merge_requests],
    }


def still_changing(catalog: Catalog, ids: list[str]) -> list[str]:
    """Those of `ids` whose folder was found and has changed lately: something may still be copied into it."""
    changing = []
    for id in ids:
        folder, quiet = catalog.checkpoint(id).path, catalog.discovered.get(id)
        if folder is None or quiet is None:
            continue
        try:
            settled = time.time() - last_change(folder) >= quiet
        except OSError:  # a file was renamed while we looked
            settled = False
        if not settled:
            changing.append(id)
    return changing


_OF_PAIRS = ("functional_similarity", "pairwise_features", "merge_labels")


def made_up_for(context: dg.SensorEvaluationContext, catalog: Catalog) -> list[dg.RunRequest]:
    """Runs for checkpoints that had left the catalog and are back: whoever arrived meanwhile has no pair with them.

    Their own partitions are computed again and take those pairs; nobody else's are.
    """
    declared = declared_keys(catalog)["checkpoint"]
    before = json.loads(context.cursor) if context.cursor else {"declared": declared, "gone": []}
    gone = sorted({*before["gone"], *before["declared"]} - set(declared))
    back = sorted(set(before["gone"]) & set(declared))
    context.update_cursor(json.dumps({"declared": declared, "gone": gone}))
    if not back:
        return []
    now = time.time_ns()  # a checkpoint may come back more than once
    done = {
        name: context.instance.get_materialized_partitions(dg.AssetKey(name)) for name in ("weight_gram", *_OF_PAIRS)
    }
    requests = []
    for id in back:
        if id in done["weight_gram"]:
            requests.append(
                dg.RunRequest(f"{id} is back {now}", partition_key=id, asset_selection=[dg.AssetKey("weight_gram")])
            )
        for task in catalog.task_ids:
            key = Cell(id, task).key
            assets = [dg.AssetKey(name) for name in _OF_PAIRS if str(key) in done[name]]
            if assets:
                requests.append(dg.RunRequest(f"{key} is back {now}", partition_key=key, asset_selection=assets))
    return requests


@dg.sensor(
    asset_selection=dg.AssetSelection.assets("weight_gram", *_OF_PAIRS),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Finds checkpoints, tasks and merge requests that are new in the catalog, or in a folder that it "
    "discovers checkpoints in, and adds their partitions; a catalog that does not parse fails the tick and leaves "
    "everything as it was.",
)
def catalog_sensor(context: dg.SensorEvaluationContext, catalog: CatalogResource) -> dg.SensorResult | dg.SkipReason:
    """Add partitions for new catalog entries; partitions are never removed here, since results belong to them."""
    known_partitions = {name: set(context.instance.get_dynamic_partitions(name)) for name in _NAMES}
    if not catalog.exists and not any(known_partitions.values()):
        return dg.SkipReason(f"There is no catalog {catalog.path} yet: `make demo` trains one.")
    try:
        found = catalog.load_as_it_is()
    except CatalogError as error:
        context.log.error(str(error))  # the tick's log, which the UI opens, does not hold what is raised
        raise
    declared = declared_keys(found)
    new_checkpoints = [id for id in declared["checkpoint"] if id not in known_partitions["checkpoint"]]
    changing = still_changing(found, new_checkpoints)
    declared["checkpoint"] = [id for id in declared["checkpoint"] if id not in changing]
    waiting = [f"Checkpoint {id!r} is still changing." for id in changing] + [left.why for left in found.left_out]
    for sentence in waiting:
        context.log.info(sentence)
    requests = []
    for partitions in (CHECKPOINT, TASK, MERGE_REQUEST):
        name = str(partitions.name)
        new = [key for key in declared[name] if key not in known_partitions[name]]
        if new:
            requests.append(partitions.build_add_request(new))
            context.log.info(f"New in the catalog, added to the partitions of {name}: {', '.join(new)}.")
    runs = made_up_for(context, found)
    if not requests and not runs:
        return dg.SkipReason(" ".join(["The catalog declares nothing new.", *waiting]))
    return dg.SensorResult(dynamic_partitions_requests=requests, run_requests=runs)


with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)  # the version is pinned below the next minor one
    automation = dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        emit_backfills=True,
        use_user_code_server=True,  # whether enough labels are new is a condition of our own
        description="Turns missing partitions into backfills, in the graph's order: a growing catalog computes itself.",
    )
