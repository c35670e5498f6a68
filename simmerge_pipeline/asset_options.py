"""What assets have in common: owners, accelerator steps, and when they are materialized by themselves."""

from __future__ import annotations

from typing import Any

import dagster as dg

from simmerge_pipeline.arrivals import ArrivalsSettled, StillDeclared
from simmerge_pipeline.executors import accelerator_on_ray
from simmerge_pipeline.retraining import EnoughNewLabels

AC = dg.AutomationCondition

OWNERS = ["team:simmerge"]

MISSING = (AC.newly_missing() | (AC.initial_evaluation() & AC.missing())).since(
    AC.newly_requested() | AC.newly_updated()
) & StillDeclared()
"""Missing partitions, also those that were there before the sensor's first tick (which `on_missing` leaves out).

What has left the catalog is asked for when it comes back."""

WHEN_INPUTS_EXIST = MISSING & ~AC.any_deps_missing()
"""Missing, and everything it reads by lineage exists."""

AFTER_INPUTS = MISSING & ~AC.any_deps_match(AC.missing())
"""As `WHEN_INPUTS_EXIST`, but never in the same run as the inputs: pairs need the others' inputs to be on disk."""

_ANYTHING = AC.all_deps_match(~AC.missing())

WHEN_INPUTS_CHANGE = AC.eager().without(~AC.any_deps_missing()) & _ANYTHING.ignore(
    dg.AssetSelection.assets("active_labels")
)
"""For unpartitioned assets: some of the partitions above may well be missing, but not all of an asset's.

Nobody has to label beyond the design."""

WHEN_ENOUGH_LABELS_ARE_NEW = WHEN_INPUTS_CHANGE & EnoughNewLabels()
"""Training costs the same for one new label as for a thousand, and changes little for one."""

WHEN_INPUTS_CHANGE_OR_MISSING = (
    (AC.eager().without(~AC.any_deps_missing()) | MISSING)
    & _ANYTHING.ignore(dg.AssetSelection.assets("active_labels"))
    & ArrivalsSettled()
)
"""As `WHEN_INPUTS_CHANGE`, also for an asset that a data root from before it lacks: `eager` leaves those out."""

WHEN_INPUTS_EXIST_BUT_BANDIT = (
    MISSING
    & ~AC.any_deps_missing().ignore(dg.AssetSelection.assets("bandit"))
    & ~AC.any_deps_in_progress()
    & ArrivalsSettled()
)
"""Requests under the selector need no bandit, and those under a bandit start it.

A request that comes with new checkpoints is served after the selector has learned of them."""

AFTER_ARRIVALS = AFTER_INPUTS & ~AC.any_deps_in_progress() & ArrivalsSettled()
"""For plans of several checkpoints on a task: which ones, the selector says that has learned of the task."""

WHEN_RESULTS_CHANGE = (
    AC.eager().without(~AC.any_deps_missing())
    & _ANYTHING.ignore(dg.AssetSelection.assets("plan_labels", "merge_outcomes"))
    & ArrivalsSettled()
)
"""For the report, which tells what there is: a catalog may have no plans executed and no merge requests."""

ONE_RUN = dg.BackfillPolicy.single_run()
"""All partitions of a backfill in one process: one load of a checkpoint serves all its tasks."""

ACCELERATOR: dict[str, Any] = {
    # One GPU per step on Ray or Kubernetes; a pool bounds how many such steps run at once on any executor.
    "op_tags": {
        "dagster-ray/config": accelerator_on_ray(),
        "dagster-k8s/config": {
            "container_config": {
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
                "env": [{"name": "SIMMERGE_DEVICE", "value": "cuda"}],  # the pods of other steps have no GPU
            }
        },
    },
    "pool": "gpu",
    "retry_policy": dg.RetryPolicy(max_retries=2, delay=30),
}
"""Options of a step that runs a model."""
