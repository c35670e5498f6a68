"""Where steps run: in processes of this machine, or as jobs of Ray or Kubernetes. SIMMERGE_EXECUTOR chooses.

Neither Ray nor Kubernetes is imported unless it is asked for: they are optional extras.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import dagster as dg

from simmerge_core.errors import SimMergeError

EXECUTOR = "SIMMERGE_EXECUTOR"
GPU_RESOURCE = "SIMMERGE_RAY_GPU_RESOURCE"

_NEEDED = {"multiprocess": (), "ray": ("ray", "dagster_ray"), "kubernetes": ("dagster_k8s",)}


def chosen_executor() -> dg.ExecutorDefinition | None:
    """The executor of every job that names none itself; None leaves Dagster's own, one process per step.

    Raises
    ------
    SimMergeError
        When the code location loads: SIMMERGE_EXECUTOR names no executor, or one whose packages are missing.
    """
    name = os.environ.get(EXECUTOR) or "multiprocess"
    if name not in _NEEDED:
        raise SimMergeError(f"{EXECUTOR} is {name!r}, which is no executor: set it to one of {', '.join(_NEEDED)}.")
    missing = [package for package in _NEEDED[name] if find_spec(package) is None]
    if missing:
        raise SimMergeError(
            f"{EXECUTOR} is {name!r}, but {' and '.join(missing)} cannot be imported: pip install 'simmerge[{name}]'."
        )
    if name == "ray":
        from simmerge_pipeline.ray_execution import ray_jobs

        return ray_jobs
    if name == "kubernetes":
        from dagster_k8s import k8s_job_executor

        return k8s_job_executor
    return None


def accelerator_on_ray() -> dict[str, Any]:
    """What a step that runs a model asks Ray for (op tag ``dagster-ray/config``): one core and one GPU.

    SIMMERGE_RAY_GPU_RESOURCE names a custom resource of the cluster to be asked for in the GPU's place, one unit per
    step: for machines that run models on the CPU, or on accelerators that Ray does not count as GPUs.
    """
    stand_in = os.environ.get(GPU_RESOURCE)
    return {"num_cpus": 1, "resources": {stand_in: 1}} if stand_in else {"num_cpus": 1, "num_gpus": 1}
