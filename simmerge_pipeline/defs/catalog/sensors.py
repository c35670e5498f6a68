"""What is new in the catalog becomes partitions; what is missing in partitions becomes backfills."""

from __future__ import annotations

import time
import warnings

import dagster as dg

from simmerge_core.catalog import Catalog
from simmerge_core.catalog.discovery import last_change
from simmerge_core.errors import CatalogError, SimMergeError
from simmerge_core.storage import kept_listings
from simmerge_core.tables import FUNCTIONAL_SIMILARITY, MERGE_LABELS, PAIRWISE_FEATURES, WEIGHT_GRAM, DataRoot
from simmerge_pipeline.arrivals import at_work
from simmerge_pipeline.contents import kept_manifests
from simmerge_pipeline.lost_pairs import attempts, lost_labels, lost_pairs, lost_records
from simmerge_pipeline.partitions import CHECKPOINT, MERGE_REQUEST, TASK, cell
from simmerge_pipeline.resources import CatalogResource, DataRootResource
from simmerge_pipeline.sentences import some

_NAMES = ("checkpoint", "task", "merge_request")
_NAMED = 20  # in one sentence of the log


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


def other_spellings(catalog: Catalog, ids: list[str], known: set[str]) -> dict[str, str]:
    """Those of `ids` that were found in a folder and are a known partition but for letter case, with that partition.

    Its own folder may be away or damaged for a while: the results of that id must not get a double meanwhile.
    """
    spelled = {id.casefold(): id for id in known}
    return {id: spelled[id.casefold()] for id in ids if id in catalog.discovered and id.casefold() in spelled}


_PROBES, _OF_PAIRS = "probe_activations", (FUNCTIONAL_SIMILARITY, PAIRWISE_FEATURES, MERGE_LABELS)


def made_up_for(instance: dg.DagsterInstance, catalog: Catalog, root: DataRoot) -> list[dg.RunRequest]:
    """Runs for pairs that were lost while a checkpoint was away: of the partitions that lack them, and no others.

    One step after another: what reads a partition is looked at again when it has been written. Each lack is asked for
    once; an attempt that fails is for somebody to repair.
    """
    steps = [(WEIGHT_GRAM.name, WEIGHT_GRAM, lost_pairs(WEIGHT_GRAM.name, catalog, root))]
    if lost := lost_records(catalog, root):
        steps.append((_PROBES, FUNCTIONAL_SIMILARITY, lost))
    else:
        for table in _OF_PAIRS:
            lost = lost_labels(catalog, root) if table is MERGE_LABELS else lost_pairs(table.name, catalog, root)
            if lost:
                steps.append((table.name, table, lost))
                break
    requests = []
    busy = at_work(instance) if any(lacking for _, _, lacking in steps) else set()
    for asset, table, lacking in steps:
        if (selected := dg.AssetKey(asset)) in busy:
            continue  # it may be under way
        registered = set(instance.get_dynamic_partitions("checkpoint"))
        for key, name in attempts(table, lacking, root).items():
            if key.partition("|")[0] in registered:
                run_key = f"{asset} {key} {name}"
                requests.append(dg.RunRequest(run_key, partition_key=_partition(key), asset_selection=[selected]))
    return requests


def _partition(key: str) -> str:
    return cell(key).key if "|" in key else key


@dg.sensor(
    asset_selection=dg.AssetSelection.assets(WEIGHT_GRAM.name, _PROBES, *(table.name for table in _OF_PAIRS)),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Finds checkpoints, tasks and merge requests that are new in the catalog, or in a folder that it "
    "discovers checkpoints in, and adds their partitions; a catalog that does not parse fails the tick and leaves "
    "everything as it was.",
)
def catalog_sensor(
    context: dg.SensorEvaluationContext, catalog: CatalogResource, data: DataRootResource
) -> dg.SensorResult | dg.SkipReason:
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
    doubles = other_spellings(found, new_checkpoints, known_partitions["checkpoint"])
    declared["checkpoint"] = [id for id in declared["checkpoint"] if id not in changing and id not in doubles]
    waiting = [f"Checkpoint {id!r} is still changing." for id in changing] + [left.why for left in found.left_out]
    waiting += [f"Checkpoint {id!r} is {known!r} in other letters: rename its folder." for id, known in doubles.items()]
    for sentence in waiting:
        context.log.info(sentence)
    requests = []
    for partitions in (CHECKPOINT, TASK, MERGE_REQUEST):
        name = str(partitions.name)
        new = [key for key in declared[name] if key not in known_partitions[name]]
        if new:
            requests.append(partitions.build_add_request(new))
            context.log.info(f"New in the catalog, added to the partitions of {name}: {some(new, _NAMED)}.")
    runs = []
    try:
        root = data.root
        with kept_listings(root.root), kept_manifests():
            runs = made_up_for(context.instance, found, root)
    except (SimMergeError, OSError) as error:  # what is new is registered nevertheless
        context.log.error(f"Whether a pair was lost cannot be seen: {error}")
    for run in runs:
        context.log.info(f"Pairs were lost while a checkpoint was away, computed again: {run.run_key}.")
    if not requests and not runs:
        reasons = ["The catalog declares nothing new.", *waiting[:_NAMED]]
        return dg.SkipReason(" ".join(reasons + [f"{len(waiting) - _NAMED} more wait."] * (len(waiting) > _NAMED)))
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
