"""Which executor the code location gets, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import dagster as dg
import pytest

from simmerge_core.errors import SimMergeError
from simmerge_pipeline import executors
from simmerge_pipeline.definitions import defs


def executor_names(definitions: dg.Definitions) -> dict[str, str]:
    """By job, the implicit one of all assets among them."""
    return {job.name: job.executor_def.name for job in definitions.resolve_all_job_defs()}


@pytest.mark.parametrize("value", [None, "", "multiprocess"])
def test_a_process_per_step_is_the_default(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("SIMMERGE_EXECUTOR", raising=False)
    if value is not None:
        monkeypatch.setenv("SIMMERGE_EXECUTOR", value)
    assert executors.chosen_executor() is None
    assert executor_names(defs())["__ASSET_JOB"] == dg.multi_or_in_process_executor.name


def test_an_unknown_one_is_refused_when_the_location_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMMERGE_EXECUTOR", "slurm")
    with pytest.raises(SimMergeError) as refused:
        defs()
    assert str(refused.value) == (
        "SIMMERGE_EXECUTOR is 'slurm', which is no executor: set it to one of multiprocess, ray, kubernetes."
    )


@pytest.mark.parametrize(("name", "package"), [("ray", "dagster_ray"), ("kubernetes", "dagster_k8s")])
def test_one_that_is_not_installed_is_refused_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setenv("SIMMERGE_EXECUTOR", name)
    monkeypatch.setattr(executors, "find_spec", lambda wanted: None if wanted == package else find_spec("json"))
    with pytest.raises(SimMergeError) as refused:
        defs()
    assert str(refused.value) == (
        f"SIMMERGE_EXECUTOR is '{name}', but {package} cannot be imported: pip install 'simmerge[{name}]'."
    )


@pytest.mark.skipif(find_spec("dagster_ray") is None, reason="dagster-ray is not installed: pip install -e '.[ray]'")
def test_ray_is_for_every_job_that_names_no_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMMERGE_EXECUTOR", "ray")
    found = executor_names(defs())
    assert found.pop("submit_merge_request") == dg.in_process_executor.name
    del found["backfill"]  # chosen when its module is imported: see below
    assert set(found.values()) == {"ray"}
    dg.Definitions.validate_loadable(defs())


@pytest.mark.parametrize(("value", "executor"), [("multiprocess", "in_process"), ("ray", "ray")])
def test_the_only_step_of_a_backfill_is_in_the_process_of_its_run_or_where_the_cluster_has_room(
    value: str, executor: str
) -> None:
    if value == "ray":
        pytest.importorskip("dagster_ray", reason="dagster-ray is not installed: pip install -e '.[ray]'")
    program = (
        "from simmerge_pipeline.definitions import defs; "
        "print([job.executor_def.name for job in defs().resolve_all_job_defs() if job.name == 'backfill'])"
    )
    environment = {**os.environ, "SIMMERGE_EXECUTOR": value}
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert told.stdout.strip() == str([executor])


def test_neither_ray_nor_kubernetes_is_imported_unasked() -> None:
    program = (
        "import sys; from simmerge_pipeline.definitions import defs; defs(); "
        "print(sorted({'ray', 'dagster_ray', 'dagster_k8s', 'kubernetes'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"


def test_a_custom_resource_takes_the_place_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMMERGE_RAY_GPU_RESOURCE", raising=False)
    assert executors.accelerator_on_ray() == {"num_cpus": 1, "num_gpus": 1}
    monkeypatch.setenv("SIMMERGE_RAY_GPU_RESOURCE", "gpu_worker")
    assert executors.accelerator_on_ray() == {"num_cpus": 1, "resources": {"gpu_worker": 1}}
