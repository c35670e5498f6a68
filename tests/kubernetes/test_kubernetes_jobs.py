"""What Kubernetes is asked for: Dagster's own launcher and job construction on the chart's values and our op tags.

Nothing here reaches a cluster. The chart itself is not rendered: `launcher_config` says what its template makes of the
values, and Dagster's schema of the launcher's configuration says whether that is right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from simmerge_pipeline.definitions import defs

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        find_spec("dagster_k8s") is None, reason="dagster-k8s is not installed: pip install -e '.[kubernetes]'"
    ),
]

VALUES = Path(__file__).parents[2] / "docker" / "kubernetes" / "values.yaml"
IMAGE = "registry.example.com/simmerge:0.1.0"
GPU = "nvidia.com/gpu"
ON_GPU = ("probe_activations", "standalone_scores", "merge_labels", "plan_labels", "merge_outcomes", "active_labels")


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return dict(yaml.safe_load(VALUES.read_text()))


def launcher_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the run launcher that the chart makes of its values: keys in snake case, names added."""
    given = values["runLauncher"]["config"]["k8sRunLauncher"]
    config = {re.sub(r"(?<!^)([A-Z])", r"_\1", key).lower(): value for key, value in given.items()}
    config["run_k8s_config"] = {
        re.sub(r"(?<!^)([A-Z])", r"_\1", key).lower(): value for key, value in config.pop("run_k8s_config").items()
    }
    return {
        **config,
        "run_k8s_config": config["run_k8s_config"],
        "job_namespace": "simmerge",
        "service_account_name": "simmerge-dagster",
        "dagster_home": values["global"]["dagsterHome"],
        "instance_config_map": "simmerge-dagster-instance",
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
    }


@pytest.fixture
def launcher(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The launcher as Dagster would build it, without a cluster to talk to."""
    from dagster._config import process_config, resolve_to_config_type
    from dagster_k8s import K8sRunLauncher

    for name in ("SIMMERGE_EXECUTOR", "SIMMERGE_CATALOG", "SIMMERGE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("dagster_k8s.launcher.load_kubernetes_config", lambda **options: None)
    found = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), launcher_config(values))
    assert found.success, found.errors
    return K8sRunLauncher.from_config_value(None, found.value)


def job_of(launcher: Any, asset: str | None) -> dict[str, Any]:
    """The Kubernetes job of the step of an asset, or that of a run if None."""
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import construct_dagster_k8s_job, get_user_defined_k8s_config

    tags = {} if asset is None else defs().resolve_asset_graph().get(dg.AssetKey(asset)).assets_def.op.tags
    run = dg.DagsterRun(job_name="__ASSET_JOB")
    context = K8sContainerContext.create_for_run(run, launcher, include_run_tags=False)
    context = context.merge(K8sContainerContext(run_k8s_config=get_user_defined_k8s_config(tags)))
    made = construct_dagster_k8s_job(
        context.get_k8s_job_config(IMAGE, launcher),
        args=["dagster", "api", "execute_step"],
        job_name="dagster-step-test",
        user_defined_k8s_config=context.run_k8s_config,
    )
    return dict(made.to_dict())


def container(job: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = job["spec"]["template"]["spec"]["containers"]
    return dict(found)


def variables(job: Mapping[str, Any]) -> dict[str, Any]:
    """Of the container, the last of each name, which is the one that Kubernetes takes."""
    return {entry["name"]: entry["value"] for entry in container(job)["env"]}


@pytest.mark.parametrize("asset", ON_GPU)
def test_a_step_that_runs_a_model_has_a_gpu_beside_what_every_step_has(launcher: Any, asset: str) -> None:
    job = job_of(launcher, asset)
    resources = container(job)["resources"]
    assert resources["limits"] == {"memory": "8Gi", GPU: "1"}
    assert resources["requests"] == {"cpu": "2", "memory": "4Gi"}
    assert variables(job)["SIMMERGE_DEVICE"] == "cuda"


@pytest.mark.parametrize("asset", [None, "checkpoints", "weight_gram", "pairwise_features", "selector"])
def test_runs_and_other_steps_take_no_gpu(launcher: Any, asset: str | None) -> None:
    job = job_of(launcher, asset)
    assert container(job)["resources"]["limits"] == {"memory": "8Gi"}
    assert "SIMMERGE_DEVICE" not in variables(job)


@pytest.mark.parametrize("asset", [None, "merge_labels", "weight_gram"])
def test_every_pod_finds_catalog_results_and_settings(launcher: Any, asset: str | None) -> None:
    job = job_of(launcher, asset)
    pod, told = job["spec"]["template"]["spec"], variables(job)
    assert container(job)["image"] == IMAGE
    assert told["SIMMERGE_EXECUTOR"] == "kubernetes"
    mounts = {mount["name"]: mount["mount_path"] for mount in container(job)["volume_mounts"]}
    assert mounts["simmerge"] == "/simmerge"
    assert told["SIMMERGE_CATALOG"].startswith("/simmerge/")
    assert told["SIMMERGE_DATA"].startswith("/simmerge/")
    claims = {volume["name"]: volume["persistent_volume_claim"] for volume in pod["volumes"]}
    assert claims["simmerge"]["claim_name"] == "simmerge"
    assert pod["security_context"]["run_as_non_root"]
    assert pod["service_account_name"] == "simmerge-dagster"
    assert job["spec"]["ttl_seconds_after_finished"] == 86400


def test_the_executor_of_the_code_location_is_one_pod_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_k8s import k8s_job_executor

    monkeypatch.setenv("SIMMERGE_EXECUTOR", "kubernetes")
    assert defs().resolve_implicit_global_asset_job_def().executor_def is k8s_job_executor


def test_nothing_is_open_to_the_outside_and_no_password_is_in_the_values(values: dict[str, Any]) -> None:
    assert values["ingress"] == {"enabled": False}
    assert values["dagsterWebserver"]["service"]["type"] == "ClusterIP"
    assert not values["generatePostgresqlPasswordSecret"]
    assert "password" not in "".join(
        re.sub("#.*", "", line) for line in VALUES.read_text().splitlines()
    ).lower().replace("generatepostgresqlpasswordsecret", "")


def test_code_server_and_pods_are_told_the_same(values: dict[str, Any]) -> None:
    (server,) = values["dagster-user-deployments"]["deployments"]
    pods = values["runLauncher"]["config"]["k8sRunLauncher"]
    of_server = {f"{entry['name']}={entry['value']}" for entry in server["env"]}
    assert of_server <= set(pods["envVars"])
    assert server["volumeMounts"] == pods["volumeMounts"]
    assert server["dagsterApiGrpcArgs"][-1] == "simmerge_pipeline.definitions"
