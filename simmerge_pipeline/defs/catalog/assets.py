"""Manifests of the catalog's checkpoints: the gate that every checkpoint passes before work is spent on it."""

# No postponed annotations here: Dagster reads the types of `context` and `config` from the annotations themselves.

from collections.abc import Iterator
from typing import Any

import dagster as dg

from simmerge_core.checkpoints import open_checkpoint, resolve
from simmerge_core.tables import CHECKPOINTS
from simmerge_pipeline.asset_options import MISSING, ONE_RUN, OWNERS
from simmerge_pipeline.contents import other_content
from simmerge_pipeline.partition_run import PartitionRun
from simmerge_pipeline.partitions import CHECKPOINT
from simmerge_pipeline.resources import CatalogResource, DataRootResource
from simmerge_pipeline.stamps import stamped
from simmerge_pipeline.table_metadata import definition_metadata, written_metadata


class CheckpointsConfig(dg.Config):
    """A checkpoint is immutable: other content under the same id is refused, unless it is meant."""

    replace: bool = False
    allow_hub: bool = False


@dg.asset(
    partitions_def=CHECKPOINT,
    group_name="catalog",
    kinds={"parquet", "safetensors"},
    owners=OWNERS,
    tags={"stage": "catalog"},
    code_version="1",
    backfill_policy=ONE_RUN,
    automation_condition=MISSING,
    metadata=definition_metadata(CHECKPOINTS),
)
def checkpoints(
    context: dg.AssetExecutionContext, config: CheckpointsConfig, catalog: CatalogResource, data: DataRootResource
) -> Iterator[Any]:
    """The manifest of a checkpoint, after its weights were found complete, finite and of the base's shape."""
    from simmerge_core.checkpoints import check_compatible, check_finite, fingerprint, manifest

    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    base = open_checkpoint(resolve(declared.base, allow_hub=config.allow_hub), name=declared.base.id)
    for number, id in enumerate(run.keys):
        with run.attempt(id):
            entry = declared.checkpoint(id)
            folder = open_checkpoint(resolve(entry, allow_hub=config.allow_hub), name=id)
            check_compatible([base, folder])
            check_finite(folder)
            content = fingerprint(folder)
            if root.exists(CHECKPOINTS, checkpoint=id) and not config.replace:
                before = root.read(CHECKPOINTS, checkpoint=id)["fingerprint"].item()
                if before != content:
                    raise other_content(id, content, before)
            domain = "base" if id == declared.base.id else entry.domain
            row = manifest(folder, checkpoint=id, domain=domain, base=declared.base.id, fingerprint=content)
            path = root.write(CHECKPOINTS, row, checkpoint=id)
            stamp = stamped("checkpoints", declared, root, id)
            run.wrote(id, {**written_metadata(CHECKPOINTS, row, path), **stamp, "fingerprint": content})
        run.progress(f"checked {id}", (number + 1) / len(run.keys))
    yield from run.results()
