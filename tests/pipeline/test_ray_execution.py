"""Steps as Ray jobs, with a job server that is a dictionary."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

pytest.importorskip("dagster_ray", reason="dagster-ray is not installed: pip install -e '.[ray]'")

from dagster._utils.error import SerializableErrorInfo
from ray.job_submission import JobStatus

from simmerge_core.errors import SimMergeError
from simmerge_pipeline import ray_execution
from simmerge_pipeline.ray_execution import RayExecutor, RaySteps, ray_jobs

RUN = "0b1c7a3e-0000-4000-8000-000000000000"
GPU_TAG = {"dagster-ray/config": json.dumps({"num_cpus": 1, "num_gpus": 1})}


@dataclass
class JobServer:
    """Ray's client, without Ray: what was submitted, and what is known of each job."""

    known: dict[str, Any] = field(default_factory=dict)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    refusal: str = ""

    def get_job_info(self, id: str) -> Any:
        if self.refusal or id not in self.known:
            raise RuntimeError(self.refusal or f"Request failed with status code 404: Job {id} does not exist.")
        return self.known[id]

    def submit_job(self, **options: Any) -> None:
        if options["submission_id"] in self.known:
            raise RuntimeError("Request failed with status code 500: it exists already.")
        self.submitted.append(options)
        self.add(options["submission_id"], JobStatus.RUNNING, options["metadata"])

    def delete_job(self, id: str) -> None:
        del self.known[id]

    def list_jobs(self) -> list[Any]:
        return list(self.known.values())

    def stop_job(self, id: str) -> None:
        self.stopped.append(id)

    def add(self, id: str, status: JobStatus, metadata: dict[str, str] | None, message: str = "") -> None:
        self.known[id] = SimpleNamespace(
            submission_id=id,
            status=status,
            metadata=metadata,
            message=message,
            driver_node_id=None,
            driver_agent_http_address=None,
        )


def step(tags: dict[str, str] | None = None, key: str = "merge_labels") -> Any:
    """What Dagster tells a step handler, as far as that looks."""
    return SimpleNamespace(
        execute_step_args=SimpleNamespace(
            run_id=RUN,
            step_keys_to_execute=[key],
            known_state=None,
            get_command_env=list,
            get_command_args=lambda skip_serialized_namedtuple: ["dagster", "api", "execute_step"],
        ),
        dagster_run=dg.DagsterRun(job_name="__ASSET_JOB", run_id=RUN),
        step_tags={key: tags or {}},
        get_step_context=lambda step_key: None,
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> JobServer:
    monkeypatch.setattr(dg.DagsterEvent, "step_worker_starting", lambda *args, **kwargs: None)
    for name in ("SIMMERGE_DATA", "SIMMERGE_DEVICE", "SIMMERGE_WORKERS"):
        monkeypatch.setenv(name, f"of-the-run-{name[9:].lower()}")
    return JobServer()


def launched(server: JobServer, context: Any) -> dict[str, Any]:
    list(RaySteps(server, env_vars=["TOKEN=x"]).launch_step(context))
    return server.submitted[-1]


def test_a_step_gets_what_its_tag_asks_for(server: JobServer) -> None:
    job = launched(server, step(GPU_TAG))
    assert (job["entrypoint_num_cpus"], job["entrypoint_num_gpus"], job["entrypoint_resources"]) == (1, 1, {})


def test_a_step_that_asks_for_nothing_gets_one_core_and_no_gpu(server: JobServer) -> None:
    job = launched(server, step(key="weight_gram"))
    assert (job["entrypoint_num_cpus"], job["entrypoint_num_gpus"]) == (1, None)
    assert job["runtime_env"]["env_vars"]["SIMMERGE_DEVICE"] == "cpu"


def test_resources_of_one_step_are_not_those_of_the_next(server: JobServer) -> None:
    steps = RaySteps(server, env_vars=[])
    tag = {"dagster-ray/config": json.dumps({"num_cpus": 1, "resources": {"gpu_worker": 1}})}
    for context in (step(tag), step(key="weight_gram"), step(GPU_TAG, key="probe_activations")):
        list(steps.launch_step(context))
    assert [job["entrypoint_resources"] for job in server.submitted] == [{"gpu_worker": 1}, {}, {}]


def test_settings_of_the_run_go_along_and_those_of_the_machine_do_not(server: JobServer) -> None:
    told = launched(server, step(GPU_TAG))["runtime_env"]["env_vars"]
    assert told["SIMMERGE_DATA"] == "of-the-run-data"
    assert told["TOKEN"] == "x"
    assert "SIMMERGE_DEVICE" not in told
    assert "SIMMERGE_WORKERS" not in told


def test_a_dead_job_of_the_same_name_gives_way_and_a_living_one_is_left_to_work(server: JobServer) -> None:
    steps, context = RaySteps(server, env_vars=[]), step(GPU_TAG)
    list(steps.launch_step(context))
    (id,) = server.known
    list(steps.launch_step(context))
    assert [job["submission_id"] for job in server.submitted] == [id]
    for status in (JobStatus.FAILED, JobStatus.STOPPED, JobStatus.SUCCEEDED):
        server.add(id, status, {})
        list(steps.launch_step(context))
        assert server.known[id].status == JobStatus.RUNNING
    assert [job["submission_id"] for job in server.submitted] == [id] * 4


def test_a_step_is_not_started_while_ray_does_not_say_whether_it_runs(server: JobServer) -> None:
    server.refusal = "Request failed with status code 503: busy."
    with pytest.raises(RuntimeError, match="503"):
        list(RaySteps(server, env_vars=[]).launch_step(step(GPU_TAG)))
    assert server.submitted == []


def test_a_step_that_is_over_without_having_said_so_is_lost(server: JobServer) -> None:
    steps, context = RaySteps(server, env_vars=[]), step(GPU_TAG)
    list(steps.launch_step(context))
    (id,) = server.known
    server.add(id, JobStatus.SUCCEEDED, {})
    assert steps.check_step_health(context).is_healthy  # what it said last is on its way
    found = steps.check_step_health(context)
    assert found.unhealthy_reason == f"its Ray job {id} is over, and the step said nothing of its end."


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.STOPPED])
def test_a_step_whose_job_is_over_is_lost(server: JobServer, status: JobStatus) -> None:
    steps, context = RaySteps(server, env_vars=[]), step(GPU_TAG)
    list(steps.launch_step(context))
    (id,) = server.known
    assert steps.check_step_health(context).is_healthy
    server.add(id, status, {}, message="killed")
    found = steps.check_step_health(context)
    assert not found.is_healthy
    assert found.unhealthy_reason == f"its Ray job {id} has {status}: killed"


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.SUCCEEDED])
def test_a_step_that_waits_runs_or_has_just_ended_is_not(server: JobServer, status: JobStatus) -> None:
    steps, context = RaySteps(server, env_vars=[]), step(GPU_TAG)
    list(steps.launch_step(context))
    server.add(next(iter(server.known)), status, {})
    assert steps.check_step_health(context).is_healthy


def test_a_job_that_ray_has_forgotten_is_lost_but_silence_is_no_answer(server: JobServer) -> None:
    steps, context = RaySteps(server, env_vars=[]), step(GPU_TAG)
    assert not steps.check_step_health(context).is_healthy
    server.refusal = "Request failed with status code 503: busy."
    with pytest.raises(RuntimeError, match="503"):
        steps.check_step_health(context)


def test_only_living_steps_of_the_run_are_stopped(server: JobServer) -> None:
    of_run = {"dagster/run-id": RUN, "dagster/op": "merge_labels"}
    server.add("step", JobStatus.RUNNING, of_run)
    server.add("waiting", JobStatus.PENDING, of_run)
    server.add("ended", JobStatus.SUCCEEDED, of_run)
    server.add("run", JobStatus.RUNNING, {"dagster/run-id": RUN})
    server.add("other", JobStatus.RUNNING, {**of_run, "dagster/run-id": "another"})
    server.add("foreign", JobStatus.RUNNING, None)
    RaySteps(server, env_vars=[]).stop_all(RUN)
    assert server.stopped == ["step", "waiting"]


def test_a_lost_step_without_a_policy_is_started_again_twice(
    server: JobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dg.DagsterEvent, "step_retry_event", lambda context, data: data.seconds_to_wait)
    monkeypatch.setattr(dg.DagsterEvent, "step_failure_event", lambda **options: "failed")
    enabled = ray_execution.RetryMode.ENABLED
    executor = RayExecutor(RaySteps(server, env_vars=[]), retries=enabled, check_seconds=5)
    lost = SerializableErrorInfo("lost", [], None)

    def outcome(policy: dg.RetryPolicy | None, attempts: int) -> Any:
        context = SimpleNamespace(step=SimpleNamespace(key="x"), op_retry_policy=policy, retry_mode=enabled)
        state = SimpleNamespace(get_retry_state=lambda: SimpleNamespace(get_attempt_count=lambda key: attempts))
        return executor.log_failure_or_retry_event_after_error(context, lost, state)

    assert [outcome(None, attempts) for attempts in range(3)] == [10, 10, "failed"]
    assert [outcome(dg.RetryPolicy(max_retries=1, delay=30), attempts) for attempts in range(2)] == [30, "failed"]


def test_the_end_of_a_step_is_seen_behind_the_events_of_a_large_range(server: JobServer) -> None:
    executor = RayExecutor(RaySteps(server, env_vars=[]), retries=ray_execution.RetryMode.ENABLED, check_seconds=5)
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(dg.GraphDefinition(name="nothing").to_job())
        for number in range(2500):
            instance.report_engine_event(str(number), run)
        assert len(executor._pop_events(instance, run.run_id, set())) == 2500


def test_without_an_address_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SimMergeError, match=r"set RAY_ADDRESS, such as http://127\.0\.0\.1:8265, or address"):
        ray_execution._client(None)


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(SimMergeError) as refused:
        ray_execution._client(None)
    assert str(refused.value).startswith("Ray at http://127.0.0.1:9 takes no jobs: start the cluster's head")
    assert "\n" not in str(refused.value)


def test_an_address_in_the_run_configuration_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(SimMergeError, match=r"Ray at http://127\.0\.0\.1:11 takes no jobs"):
        ray_execution._client("http://127.0.0.1:11")


def test_the_run_configuration_is_checked() -> None:
    @dg.job(executor_def=ray_jobs)
    def nothing() -> None: ...

    good = {"execution": {"config": {"address": "http://127.0.0.1:8265", "check_seconds": 2, "env_vars": ["A=b"]}}}
    assert dg.validate_run_config(nothing, good)["execution"]["ray"]["check_seconds"] == 2
    with pytest.raises(dg.DagsterInvalidConfigError, match="num_gpus"):
        dg.validate_run_config(nothing, {"execution": {"config": {"num_gpus": 1}}})
