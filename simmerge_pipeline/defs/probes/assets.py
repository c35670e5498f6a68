"""What each checkpoint does on each task's probes, recorded once."""

# No postponed annotations here: Dagster reads the types of `context` and `config` from the annotations themselves.

from collections.abc import Iterator
from typing import Any

import dagster as dg

from simmerge_core.checkpoints import resolve
from simmerge_core.probes import probe_path, read_prompts
from simmerge_pipeline.asset_options import ACCELERATOR, ONE_RUN, OWNERS, WHEN_INPUTS_EXIST
from simmerge_pipeline.contents import fingerprint_of, fingerprints, require_content, task_probe_key
from simmerge_pipeline.partition_run import PartitionRun
from simmerge_pipeline.partitions import CHECKPOINT_TASK, Cell
from simmerge_pipeline.resources import CatalogResource, ComputeResource, DataRootResource
from simmerge_pipeline.stamps import stamped


@dg.asset(
    deps=["checkpoints"],
    partitions_def=CHECKPOINT_TASK,
    group_name="probes",
    kinds={"torch", "safetensors"},
    owners=OWNERS,
    tags={"stage": "signals"},
    code_version="1",
    backfill_policy=ONE_RUN,
    automation_condition=WHEN_INPUTS_EXIST,
    **ACCELERATOR,
)
def probe_activations(
    context: dg.AssetExecutionContext, catalog: CatalogResource, data: DataRootResource, compute: ComputeResource
) -> Iterator[Any]:
    """The probe record of a checkpoint on a task (App. B.2): distributions, hidden states, attention patterns."""
    from simmerge_core.checkpoints import load_model
    from simmerge_core.probes import record_probes

    declared, root, run = catalog.load(), data.root, PartitionRun(context)
    prints = fingerprints(root, declared)
    for number, (checkpoint, tasks) in enumerate(run.tasks_of.items()):
        with run.attempt(*(Cell(checkpoint, task).key for task in tasks)):
            content = fingerprint_of(prints, checkpoint)
            require_content(root, declared, prints, checkpoint)
            model, tokenizer = load_model(resolve(declared.checkpoint(checkpoint)), device=compute.device)
            for task in tasks:
                with run.attempt(key := Cell(checkpoint, task).key):
                    entry, path = declared.task(task), probe_path(root, checkpoint, task)
                    record = record_probes(
                        model,
                        tokenizer,
                        read_prompts(entry.probes, limit=entry.probe_settings.count),
                        settings=entry.probe_settings,
                        batch_size=compute.batch_size,
                        device=compute.device,
                        checkpoint=checkpoint,
                        task=task,
                    ).save(path, fingerprint=content, probe_key=task_probe_key(declared, task))
                    size = {"prompts": record.prompts, "bytes": record.bytes, "dagster/uri": path.as_uri()}
                    run.wrote(key, {**size, **stamped("probe_activations", declared, root, key)})
        run.progress(f"probed {checkpoint}", (number + 1) / len(run.tasks_of))
    yield from run.results()
