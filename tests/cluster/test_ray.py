"""Steps on a Ray cluster of two nodes: placed by their resources, equal to a single process, and safe from faults.

The faults are real: processes are killed by SIGKILL while labels are being made. No test asserts how long a recovery
takes; `timed` records it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psutil
import pytest
from cluster_deployment import LABELS, SIGNALS, Deployment, tables
from cluster_ray import RayCluster, until

pytest_plugins = ["cluster_ray_fixtures"]
_MISSING = [package for package in ("ray", "dagster_ray") if find_spec(package) is None]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(_MISSING), reason=f"{' and '.join(_MISSING)} not installed: pip install -e '.[ray]'"),
]

Deploy = Callable[..., Deployment]
Timed = dict[str, dict[str, float]]
E = dg.DagsterEventType

ON_GPU = {"probe_activations", "standalone_scores", "merge_labels"}


def labels_begun(deployment: Deployment) -> int:
    """Wait until some labels are stored and others are still to be made; the process of the step."""
    until(deployment.stored, f"labels ({deployment.folder})")
    process = int(deployment.noted("evaluations")[-1]["pid"])
    assert psutil.pid_exists(process), "the labels were all made before the fault"
    return process


def all_ended(deployment: Deployment) -> list[dg.DagsterRun]:
    """Wait until a run has succeeded and none is left; all runs, oldest first."""

    def ended() -> list[dg.DagsterRun]:
        runs = deployment.runs()
        return runs if runs and runs[-1].is_success and all(run.is_finished for run in runs) else []

    return list(until(ended, f"runs of {deployment.folder} to succeed", seconds=400, every=0.5))


def wanted_keys(data: Path) -> list[str]:
    """Keys of the evaluations that the labels are made of."""
    frames = [pl.read_parquet(file) for file in sorted((data / "merge_labels").rglob("*.parquet"))]
    return sorted(pl.concat(frames)["evaluation_key"].unique().to_list())


def assert_complete(deployment: Deployment, reference: Path, *names: str, evaluations: bool = True) -> None:
    """Tables are those of a single process to the byte, and every evaluation is stored, once."""
    found, wanted = tables(deployment.data, names), tables(reference, names)
    assert found.keys() == wanted.keys()
    assert [path for path in wanted if found[path] != wanted[path]] == []
    stored = deployment.stored()
    assert len(stored) == len(set(stored))
    assert not evaluations or set(wanted_keys(reference)) <= set(stored)


def first_after(deployment: Deployment, moment: float, *types: E, saying: str = "") -> float:
    """Seconds from a moment to the first log entry of some types after it."""
    entries = [e for e in deployment.events(*types) if e.timestamp > moment and saying in e.message]
    return round(entries[0].timestamp - moment, 1)


def work_goes_on(deployment: Deployment, moment: float, *, not_by: int = 0) -> float:
    """Seconds from a moment to the first evaluation after it."""
    lines = [n for n in deployment.noted("evaluations") if n["time"] > moment and n["pid"] != not_by]
    return round(float(lines[0]["time"]) - moment, 1) if lines else float("nan")


def kill(process: int) -> float:
    """SIGKILL; the moment."""
    os.kill(process, signal.SIGKILL)
    return time.time()


def run_process(deployment: Deployment) -> int:
    """The process of the newest run."""
    started = [e for e in deployment.events(E.ENGINE_EVENT) if "Started process for run" in e.message]
    return int(started[-1].message.split("pid: ")[1].rstrip(")."))


def test_a_backfill_runs_where_its_resources_are_and_equals_a_single_process(
    cluster: RayCluster, deploy: Deploy, in_one_process: Path, timed: Timed
) -> None:
    deployment = deploy(signals=False)
    backfill = deployment.backfill(*SIGNALS, *LABELS)
    deployment.start_daemon()
    deployment.wait(backfill)
    assert_complete(deployment, in_one_process, *SIGNALS, *LABELS)
    assert len(deployment.evaluated()) == len(set(deployment.evaluated())) == len(deployment.stored())

    ran_on = {line["step"]: line["node"] for line in deployment.noted("steps")}
    assert ran_on.keys() == {*SIGNALS, *LABELS}
    assert {step for step, node in ran_on.items() if node == cluster.worker.name} >= ON_GPU
    # Ray agrees, and Dagster's log says so too.
    jobs = {job.metadata["dagster/op"]: job for job in cluster.jobs() if "dagster/op" in (job.metadata or {})}
    nodes = {jobs[step].driver_node_id for step in ON_GPU}
    assert len(nodes) == 1
    placed = [e for e in deployment.events(E.ENGINE_EVENT) if "runs on Ray node" in e.message]
    assert {
        e.dagster_event.engine_event_data.metadata["Ray node"].value for e in placed if e.step_key in ON_GPU
    } == nodes

    submitted, began, ended = (
        {e.step_key: e.timestamp for e in deployment.events(kind)}
        for kind in (E.STEP_WORKER_STARTING, E.STEP_START, E.STEP_SUCCESS)
    )
    timed["step"] = {
        "submitted to started": round(sum(began[s] - submitted[s] for s in ran_on) / len(ran_on), 1),
        "at work": round(sum(ended[s] - began[s] for s in ran_on) / len(ran_on), 1),
    }


def test_a_killed_step_is_retried_and_nothing_stored_is_computed_again(
    deploy: Deploy, in_one_process: Path, timed: Timed
) -> None:
    deployment = deploy(gated=True)
    deployment.backfill("merge_labels")
    deployment.start_daemon()
    process = labels_begun(deployment)
    moment = kill(process)
    stored = deployment.stored()
    deployment.open_gate()
    (run,) = all_ended(deployment)

    assert run.is_success
    assert_complete(deployment, in_one_process, "merge_labels")
    assert [e.step_key for e in deployment.events(E.STEP_UP_FOR_RETRY)] == ["merge_labels"]
    again = [line for line in deployment.noted("evaluations") if line["pid"] != process]
    assert sum(len(line["tasks"]) for line in again) == len(deployment.stored()) - len(stored) > 0
    timed["step killed"] = {
        "noticed": first_after(deployment, moment, E.STEP_UP_FOR_RETRY),
        "labels again": work_goes_on(deployment, moment),
        "retry policy's delay": 30.0,
    }


def test_a_killed_step_without_a_retry_policy_is_retried(deploy: Deploy, in_one_process: Path, timed: Timed) -> None:
    deployment = deploy(signals=False)
    deployment.backfill("checkpoints")
    deployment.start_daemon()
    moment = kill(int(until(lambda: deployment.noted("steps"), "the step to start")[0]["pid"]))
    (run,) = all_ended(deployment)

    assert run.is_success
    assert_complete(deployment, in_one_process, "checkpoints", evaluations=False)
    assert len(deployment.noted("steps")) == 2
    timed["step without policy killed"] = {
        "noticed": first_after(deployment, moment, E.STEP_UP_FOR_RETRY),
        "started again": first_after(deployment, moment, E.STEP_RESTARTED),
        "delay": 10.0,
    }


def test_a_lost_node_is_noticed_and_its_step_waits_for_another(
    cluster: RayCluster, deploy: Deploy, in_one_process: Path, timed: Timed
) -> None:
    deployment = deploy(gated=True)
    deployment.backfill("merge_labels")
    deployment.start_daemon()
    process, lost = labels_begun(deployment), cluster.worker.name
    cluster.kill_worker()
    moment = time.time()
    stored = deployment.stored()
    deployment.open_gate()
    cluster.start_worker()
    (run,) = all_ended(deployment)

    assert run.is_success
    assert_complete(deployment, in_one_process, "merge_labels")
    assert [line["node"] for line in deployment.noted("steps")] == [lost, cluster.worker.name]
    again = [line for line in deployment.noted("evaluations") if line["pid"] != process]
    assert sum(len(line["tasks"]) for line in again) == len(deployment.stored()) - len(stored) > 0
    timed["node lost"] = {
        "noticed": first_after(deployment, moment, E.STEP_UP_FOR_RETRY),
        "labels again": work_goes_on(deployment, moment),
        "retry policy's delay": 30.0,
    }


@pytest.mark.parametrize("step_dies", [False, True], ids=["step-lives", "step-dies-too"])
def test_a_run_is_taken_up_again_after_daemon_and_run_were_killed(
    deploy: Deploy, in_one_process: Path, timed: Timed, step_dies: bool
) -> None:
    deployment = deploy(gated=True)
    deployment.backfill("merge_labels")
    deployment.start_daemon()
    process = labels_begun(deployment)
    deployment.kill_daemon()
    moment = kill(run_process(deployment))
    if step_dies:
        kill(process)
    stored = deployment.stored()
    deployment.open_gate()
    deployment.start_daemon()
    (run,) = all_ended(deployment)  # the same run: a new one would be a second

    assert run.is_success
    assert_complete(deployment, in_one_process, "merge_labels")
    processes = [line["pid"] for line in deployment.noted("evaluations")]
    if step_dies:
        assert len(set(processes)) == 2
        assert len(processes) - processes.count(process) == len(deployment.stored()) - len(stored) > 0
    else:
        assert set(processes) == {process}, "the step went on all the time"
        assert len(deployment.evaluated()) == len(set(deployment.evaluated()))
    timed[f"daemon, run{' and step' if step_dies else ''} killed"] = {
        "run taken up": first_after(deployment, moment, E.ENGINE_EVENT, saying="Started process for resum"),
        "labels again": work_goes_on(deployment, moment),
    }


def test_a_run_that_cannot_be_taken_up_is_started_again_and_what_it_left_is_stopped(
    cluster: RayCluster, deploy: Deploy, in_one_process: Path, timed: Timed
) -> None:
    deployment = deploy(launcher="default", gated=True)
    deployment.backfill("merge_labels")
    deployment.start_daemon()
    process = labels_begun(deployment)
    moment = kill(run_process(deployment))
    until(lambda: not psutil.pid_exists(process), "the step of the lost run to be stopped", seconds=400)
    deployment.open_gate()
    first, second = all_ended(deployment)

    assert first.status == dg.DagsterRunStatus.FAILURE
    assert second.parent_run_id == first.run_id
    assert_complete(deployment, in_one_process, "merge_labels")
    jobs: dict[Any, Any] = {(job.metadata or {}).get("dagster/run-id"): job.status for job in cluster.jobs()}
    assert jobs[first.run_id] == "STOPPED"
    new = min(line["time"] for line in deployment.noted("steps") if line["pid"] != process)
    assert all(line["time"] < new for line in deployment.noted("evaluations") if line["pid"] == process)
    timed["run killed, without resuming"] = {
        "noticed": first_after(deployment, moment, E.RUN_FAILURE),
        "labels again by the new run": work_goes_on(deployment, moment, not_by=process),
    }


def test_a_canceled_run_leaves_no_step_behind(cluster: RayCluster, deploy: Deploy) -> None:
    deployment = deploy(gated=True)
    deployment.backfill("merge_labels")
    deployment.start_daemon()
    process = labels_begun(deployment)
    (run,) = deployment.runs()
    with deployment.instance() as instance:
        assert instance.run_launcher.terminate(run.run_id)
    until(lambda: deployment.runs()[0].status == dg.DagsterRunStatus.CANCELED, "the run to be canceled")
    until(lambda: not psutil.pid_exists(process), "its step to end")
