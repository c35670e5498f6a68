"""Steps as jobs of a Ray cluster, by dagster-ray; and what a cluster needs that loses processes and machines.

dagster-ray submits a step as a Ray job and asks after it. Added here: a core for steps that ask for nothing (Ray would
put all of them on the head, uncounted), another try for whatever is lost with a process or a machine, no guess that a
step is dead while the cluster's answer is missing, and no step left running for a run that is over.
"""

# No postponed annotations here: Dagster reads the types of an executor's context from the annotations themselves.

import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import dagster as dg

# Dagster exports neither the base class of executors of this kind nor what belongs to it.
from dagster._core.events import EngineEventData
from dagster._core.execution.plan.objects import StepRetryData
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)
from dagster_ray.configs import USER_DEFINED_RAY_KEY
from dagster_ray.core.executor import RayStepHandler

from simmerge_core.errors import SimMergeError

_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # in Ray's order; Ray lets them win over any argument
_PER_MACHINE = {"SIMMERGE_DEVICE", "SIMMERGE_WORKERS", "SIMMERGE_CACHE", "SIMMERGE_CACHE_GB"}
_OVER = {"FAILED", "STOPPED"}
_LOST_RETRIES, _LOST_DELAY = 2, 10  # times, seconds

_CONFIG = {
    "address": dg.Field(
        dg.Noneable(str),
        default_value=None,
        description="where the cluster takes jobs, such as http://127.0.0.1:8265; RAY_ADDRESS if null",
    ),
    "env_vars": dg.Field(
        [str],
        default_value=[],
        description="further environment variables of the steps, as NAME=value or NAME; the SIMMERGE_ settings of the "
        "run go with every step, but for device, workers and cache, which each machine sets for itself",
    ),
    "check_seconds": dg.Field(
        dg.IntSource, default_value=5, description="seconds between two questions to Ray whether steps still run"
    ),
    "retries": get_retries_config(),
}


@dg.executor(name="ray", config_schema=_CONFIG, requirements=dg.multiple_process_executor_requirements())
def ray_jobs(context: dg.InitExecutorContext) -> StepDelegatingExecutor:
    """Each step is a Ray job, placed by the op tag ``dagster-ray/config``.

    How many run at once is for pools and for the cluster's resources. The resources of a step stand on its asset: a
    setting for all steps would take their place.
    """
    config: Mapping[str, Any] = context.executor_config
    return RayExecutor(
        RaySteps(_client(config["address"]), env_vars=config["env_vars"]),
        retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
        check_seconds=config["check_seconds"],
    )


class RayExecutor(StepDelegatingExecutor):
    """Follows steps in the event log; a step that was killed, or whose machine is lost, fails and may be retried."""

    def __init__(self, steps: "RaySteps", *, retries: RetryMode, check_seconds: int) -> None:
        super().__init__(
            steps,
            retries=retries,
            check_step_health_interval_seconds=check_seconds,
            # Dagster's own check refuses an attempt that was begun before, and so every step of a resumed run that died
            # with it. Ray takes a job's name once, which is the attempt's, and starts no job by itself.
            should_verify_step=False,
        )
        self._steps = steps
        # All that is new at once. By pages of a thousand a step's end can lie behind the events of a large range, and
        # the step be taken for one that still runs, or is lost, or was never begun.
        self._pop_events_limit = 1_000_000

    def log_failure_or_retry_event_after_error(
        self, step_context: Any, err_info: Any, known_state: Any
    ) -> dg.DagsterEvent:
        """A step that was lost, rather than failed, is started again even if it has no policy for its failures."""
        attempts = known_state.get_retry_state().get_attempt_count(step_context.step.key)
        retried = step_context.op_retry_policy is None and not step_context.retry_mode.disabled
        if retried and attempts < _LOST_RETRIES:
            return dg.DagsterEvent.step_retry_event(step_context, StepRetryData(err_info, seconds_to_wait=_LOST_DELAY))
        return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        """Run the plan; before it, stop what its dead parent run left, and after it, what a canceled run leaves."""
        instance, run = plan_context.instance, plan_context.dagster_run
        parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
        if parent is not None and parent.is_finished:
            # The process of the parent died, its steps did not: they would compute the same beside this run's.
            self._steps.stop_all(parent.run_id)
        try:
            yield from super().execute(plan_context, execution_plan)
        finally:
            # Where runs are resumed, Dagster spares the steps of an interrupted run, even if somebody canceled it.
            now = instance.get_run_by_id(run.run_id)
            if now is not None and now.status == dg.DagsterRunStatus.CANCELING:
                self._steps.stop_all(run.run_id)


class RaySteps(StepHandler):
    """One Ray job per attempt of a step."""

    def __init__(self, client: Any, *, env_vars: list[str]) -> None:
        self._client = client
        forwarded = sorted(name for name in os.environ if name.startswith("SIMMERGE_") and name not in _PER_MACHINE)
        settings = [*forwarded, *env_vars]
        make = partial(RayStepHandler, client, runtime_env=None, num_gpus=None, memory=None, resources=None)
        # What is given here takes the place of what the step asks for.
        self._as_tagged = make(settings, num_cpus=None)
        # On a machine with GPUs too: Ray shows none to a step that asked for none.
        self._one_core = make([*settings, "SIMMERGE_DEVICE=cpu"], num_cpus=1)
        self._placed: set[str] = set()
        self._succeeded: set[str] = set()

    @property
    def name(self) -> str:
        """As dagster-ray's."""
        return self._as_tagged.name

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Submit the step, unless it runs already."""
        if self._runs_already(step_handler_context):
            return
        (tags,) = step_handler_context.step_tags.values()
        handler = self._as_tagged if USER_DEFINED_RAY_KEY in tags else self._one_core
        yield from handler.launch_step(step_handler_context)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Whether the step can still be expected to end; raises, which Dagster notes and survives, if Ray is silent."""
        (key,) = step_handler_context.step_tags
        id = self._submission_id(step_handler_context)
        job = self._job(id)
        if job is None:
            return CheckStepHealthResult.unhealthy(f"the Ray cluster does not know its job {id} (any more).")
        if job.status in _OVER:
            return CheckStepHealthResult.unhealthy(f"its Ray job {id} has {job.status}: {job.message or 'no reason'}")
        if job.status == "SUCCEEDED":
            # Its end is in the event log before it is over for Ray, so that nobody asks a second time.
            if id in self._succeeded:
                return CheckStepHealthResult.unhealthy(
                    f"its Ray job {id} is over, and the step said nothing of its end."
                )
            self._succeeded.add(id)
        if job.driver_node_id and id not in self._placed:
            self._placed.add(id)
            dg.DagsterEvent.engine_event(
                step_handler_context.get_step_context(key),
                f'Step "{key}" runs on Ray node {job.driver_node_id} ({job.driver_agent_http_address}).',
                EngineEventData({"Ray node": job.driver_node_id}),
            )
        return CheckStepHealthResult.healthy()

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        """Stop the step."""
        yield from self._as_tagged.terminate_step(step_handler_context)

    def stop_all(self, run_id: str) -> None:
        """Stop every step of a run that Ray still runs or has still to start."""
        for job in self._client.list_jobs():
            about = job.metadata or {}
            if about.get("dagster/run-id") == run_id and "dagster/op" in about and not job.status.is_terminal():
                self._client.stop_job(job.submission_id)

    def _submission_id(self, context: StepHandlerContext) -> str:
        return self._as_tagged._get_ray_job_submission_id(context)

    def _job(self, id: str) -> Any:
        """What Ray knows about a job, None if it says that it knows nothing."""
        try:
            return self._client.get_job_info(id)
        except RuntimeError as error:
            # Any refusal is a RuntimeError to Ray's client; a head that has no time is no reason to start a step twice.
            if "status code 404" not in str(error):
                raise
            return None

    def _runs_already(self, context: StepHandlerContext) -> bool:
        """Whether Ray has this attempt under way; where it has only its remains, they are removed, for their name.

        A resumed run starts a step anew that died while nobody watched, and whatever it could not ask Ray about.
        """
        id = self._submission_id(context)
        job = self._job(id)
        if job is not None and job.status.is_terminal():
            self._client.delete_job(id)
        return job is not None and not job.status.is_terminal()


def _client(address: str | None) -> Any:
    """A connection to the cluster's job server."""
    from ray.job_submission import JobSubmissionClient

    named = next((os.environ[name] for name in _ADDRESSES if os.environ.get(name)), None)
    if address is None and named is None:
        raise SimMergeError(
            "The Ray executor has no cluster: set RAY_ADDRESS, such as http://127.0.0.1:8265, or address in the "
            "executor's run configuration."
        )
    if address is not None:
        os.environ[_ADDRESSES[0]] = address  # this process serves one run, and Ray prefers what it finds here
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError) as error:
        raise SimMergeError(
            f"Ray at {address or named} takes no jobs: start the cluster's head with its dashboard, or correct the "
            f"address or RAY_AUTH_TOKEN ({' '.join(str(error).split())[:200]})."
        ) from error
