"""Bandits that choose the operators of merge requests, and the rounds that they have learned from."""

# No postponed annotations here: Dagster reads the types of `context` and `config` from the annotations themselves.

from collections.abc import Iterator
from typing import Any

import dagster as dg

from simmerge_core.bandit import OnlineBandit
from simmerge_core.errors import BanditError, SimMergeError
from simmerge_core.features.columns import FEATURE_VERSION
from simmerge_core.files import write_json
from simmerge_core.tables import BANDIT_ROUNDS, MERGE_OUTCOMES, MERGE_PLANS
from simmerge_pipeline import checks
from simmerge_pipeline.asset_options import AFTER_INPUTS, ONE_RUN, OWNERS, WHEN_INPUTS_CHANGE_OR_MISSING
from simmerge_pipeline.bandits import drop_unused, learned_rounds, opened_bandit, ready_bandit, wanted_bandits
from simmerge_pipeline.contents import fingerprints
from simmerge_pipeline.lineage import lineage_metadata
from simmerge_pipeline.partition_run import PartitionRun
from simmerge_pipeline.partitions import MERGE_REQUEST
from simmerge_pipeline.pictures import regret_pictures
from simmerge_pipeline.plain_metadata import facts, rounded
from simmerge_pipeline.progress import part, progress_of
from simmerge_pipeline.requests import best_plan
from simmerge_pipeline.resources import CatalogResource, DataRootResource
from simmerge_pipeline.stamps import stamped
from simmerge_pipeline.table_metadata import definition_metadata, written_metadata


@dg.asset(
    deps=["pairwise_features", "merge_labels"],
    group_name="bandit",
    kinds={"torch", "safetensors"},
    owners=OWNERS,
    tags={"stage": "selection"},
    code_version=f"1.{FEATURE_VERSION}",
    automation_condition=WHEN_INPUTS_CHANGE_OR_MISSING,
)
def bandit(context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource) -> dg.MaterializeResult:
    """A folder per action set and policy that a merge request asks: frozen encoder, posterior, and the log of rounds.

    Each is started on the labels that are there then, and again on newer ones as long as it has chosen nothing. From
    its first round on it goes on: operators and tasks that are new in the catalog join it, operators that are gone are
    retired, and what it has learned stays.
    """
    declared, root, progress = catalog.load(), data.root, progress_of(context)
    prints, wanted, told, failed = fingerprints(root, declared), wanted_bandits(declared), {}, {}
    for number, (name, (actions, policy)) in enumerate(wanted.items()):
        try:
            drop_unused(declared, root, prints, actions, policy)
            piece = part(progress, number, len(wanted))
            online, changes = ready_bandit(declared, root, prints, actions, policy, piece)
        except SimMergeError as error:  # one broken bandit must not stop the others
            failed[name] = str(error)
            continue
        for change in changes:
            context.log.info(f"Bandit {name}: {change}.")
        for difference in online.differs_from(declared.bandit.model_dump()):
            context.log.warning(f"{difference}: `simmerge bandit restart {name}` starts it anew.")
        told[name] = online.summary()
    write_json(root.root / "bandit" / "bandits.json", told)
    if failed:
        raise BanditError(" ".join(f"{name}: {text}" for name, text in failed.items()))
    about = {name: facts({k: _text(v) for k, v in summary.items()}) for name, summary in told.items()}
    place = {"dagster/uri": (root.root / "bandit").as_uri()}
    return dg.MaterializeResult(metadata={"bandits": len(told), **about, **place, **stamped("bandit", declared, root)})


def _text(value: Any) -> Any:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else value


@dg.asset(
    deps=["merge_outcomes", "bandit"],
    partitions_def=MERGE_REQUEST,
    group_name="bandit",
    kinds={"polars", "parquet"},
    owners=OWNERS,
    tags={"stage": "selection"},
    code_version="1",
    backfill_policy=ONE_RUN,
    automation_condition=AFTER_INPUTS,
    metadata=definition_metadata(BANDIT_ROUNDS),
    check_specs=checks.specs("bandit_rounds", checks.NO_NAN),
)
def bandit_rounds(context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource) -> Iterator[Any]:
    """One step of a request that a bandit decided, with its reward; the bandit has learned it. None under `selector`.

    A round counts once, however often this is materialized.
    """
    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    learned: dict[str, OnlineBandit] = {}
    for id in run.keys:
        with run.attempt(id):
            request, rows, about = declared.merge_request(id), BANDIT_ROUNDS.empty(), {}
            if request.policy != "selector":
                online, plan = opened_bandit(root, request), best_plan(root.read(MERGE_PLANS, merge_request=id))
                outcomes = root.read(MERGE_OUTCOMES, merge_request=id)
                rows = learned_rounds(online, declared, request, plan, outcomes)
                about = {"bandit": online.name, "reward": rounded(rows["reward"][-1])}
                learned[online.name] = online
            run.verdicts.add("no_nan", id, checks.nans(rows), examined=rows.height)
            path = root.write(BANDIT_ROUNDS, rows, merge_request=id)
            stamp = stamped("bandit_rounds", declared, root, id)
            run.wrote(id, {**written_metadata(BANDIT_ROUNDS, rows, path), **stamp, **about})
    yield from run.results(metadata={**regret_pictures(learned.values()), **lineage_metadata(BANDIT_ROUNDS)})
