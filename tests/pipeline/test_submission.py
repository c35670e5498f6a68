"""A merge request from the UI: the job in this process, on a copy of the tiny catalog."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import pytest
import yaml
from pipeline_world import World

from simmerge_core.catalog import MergeRequest
from simmerge_pipeline.definitions import defs
from simmerge_pipeline.defs.catalog.sensors import catalog_sensor
from simmerge_pipeline.defs.catalog.submission import MergeRequestConfig, submit_merge_request
from simmerge_pipeline.event_log import persistent_instance
from simmerge_pipeline.resources import CatalogResource, DataRootResource

NO_CAPTURE = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def job_of(world: World) -> dg.JobDefinition:
    """The job on the world's own catalog."""
    resources = {"catalog": CatalogResource(path=str(world.catalog_path))}
    return dg.Definitions(jobs=[submit_merge_request], resources=resources).resolve_job_def("submit_merge_request")


def submit(world: World, **config: Any) -> dg.ExecuteInProcessResult:
    return job_of(world).execute_in_process(
        run_config={"ops": {"declare_merge_request": {"config": config}}, **QUIET},
        instance=world.instance,
        raise_on_error=False,
    )


def partitions(world: World) -> list[str]:
    return list(world.instance.get_dynamic_partitions("merge_request"))


def sentence(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    failure = event.step_failure_data.user_failure_data
    assert failure is not None
    assert not [event for event in result.all_events if event.is_step_restarted or event.is_step_up_for_retry]
    return str(failure.description)


def test_it_is_a_described_job_whose_example_the_launchpad_shows() -> None:
    job = defs().resolve_job_def("submit_merge_request")
    assert "automation sensor" in str(job.description)
    assert job.run_config is not None
    shown = job.run_config["ops"]["declare_merge_request"]["config"]
    assert shown.keys() == MergeRequestConfig.model_fields.keys()
    assert (shown["tasks"], shown["checkpoints"], shown["policy"]) == (["math"], [], "selector")


def test_its_settings_are_those_of_the_catalog() -> None:
    ours, theirs = MergeRequestConfig.model_fields, MergeRequest.model_fields
    assert ours.keys() == theirs.keys() - {"task"}
    for name in ("how", "policy"):
        assert get_args(ours[name].annotation) == get_args(theirs[name].annotation)
    for name in ("how", "policy", "k", "actions", "top", "weights"):
        assert ours[name].default == theirs[name].default


def test_the_example_is_served_by_the_demo_catalog(small: World) -> None:
    assert job_of(small).execute_in_process(instance=small.instance).success
    assert small.catalog.merge_request("my-request").targets == ("math",)


def test_an_entry_and_a_partition_are_added(small: World) -> None:
    before = small.catalog
    result = submit(
        small, id="both", tasks=["math"], weights=[2], k=2, checkpoints=["math-01", "code-01"], policy="linucb"
    )
    assert result.success
    assert partitions(small) == ["both"]
    entry = {
        "id": "both",
        "tasks": ["math"],
        "weights": [2.0],
        "k": 2,
        "checkpoints": ["math-01", "code-01"],
        "policy": "linucb",
    }
    assert yaml.safe_load(small.catalog_path.read_text())["merge_requests"] == [entry]
    after = small.catalog
    assert after.model_copy(update={"merge_requests": before.merge_requests}) == before
    told = [record.user_message for record in small.instance.all_logs(result.run_id)]
    assert [text for text in told if "Added merge request 'both'" in text and str(small.catalog_path) in text]
    (output,) = [event for event in result.all_events if event.is_successful_output]
    assert output.step_output_data.metadata["merge_request"].value == entry


def test_the_sensor_finds_nothing_left_to_add(small: World) -> None:
    submit(small, id="both", tasks=["math"], k=2)
    resources = {
        "catalog": CatalogResource(path=str(small.catalog_path)),
        "data": DataRootResource(path=str(small.data)),
    }
    with dg.build_sensor_context(instance=small.instance, resources=resources) as context:
        found = catalog_sensor(context)
    assert isinstance(found, dg.SensorResult)
    added = {request.partitions_def_name for request in found.dynamic_partitions_requests or []}
    assert added == {"checkpoint", "task"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"id": "../x"}, "cannot be a folder name"),
        ({"tasks": ["chess"]}, "names the unknown task 'chess': known are math."),
        ({"tasks": []}, "needs either task or tasks"),
        ({"checkpoints": ["math-77"]}, "unknown checkpoint 'math-77'"),
        ({"k": 4}, "wants 4 checkpoints of 3"),
        ({"k": 0}, "k 0"),
        ({"weights": [1, 2]}, "weights [1.0, 2.0] for 1 tasks"),
        ({"actions": "nosuch"}, "no action set 'nosuch'"),
        ({"id": "taken"}, "already has a merge request 'taken'"),
        ({"id": "TAKEN"}, "already has a merge request 'taken'"),
    ],
)
def test_a_request_that_cannot_be_served_fails_once_and_changes_nothing(
    small: World, config: dict[str, Any], said: str
) -> None:
    small.declare(merge_requests=[{"id": "taken", "task": "math", "k": 3}])
    before = small.catalog_path.read_bytes()
    told = sentence(submit(small, **{"id": "new", "tasks": ["math"], **config}))
    assert said in told
    assert told.endswith(".")
    assert "\n" not in told
    assert small.catalog_path.read_bytes() == before
    assert partitions(small) == []


@pytest.mark.parametrize("config", [{"policy": "best"}, {"how": "max"}, {"k": "two"}, {"colour": "red"}])
def test_a_setting_of_another_type_is_refused_before_the_run(small: World, config: dict[str, Any]) -> None:
    before = small.catalog_path.read_bytes()
    with pytest.raises(dg.DagsterInvalidConfigError):
        submit(small, **{"id": "new", "tasks": ["math"], **config})
    assert small.catalog_path.read_bytes() == before
    assert partitions(small) == []


def test_a_catalog_that_does_not_parse_is_named(small: World) -> None:
    small.catalog_path.write_text("version: [1")
    assert f"Catalog {small.catalog_path} is not valid YAML" in sentence(submit(small, id="new", tasks=["math"]))
    assert small.catalog_path.read_text() == "version: [1"


def test_the_same_again_is_no_failure_and_adds_a_partition_that_was_lost(small: World) -> None:
    submit(small, id="both", tasks=["math"])
    before = small.catalog_path.read_bytes()
    small.instance.delete_dynamic_partition("merge_request", "both")
    assert submit(small, id="both", tasks=["math"]).success
    assert partitions(small) == ["both"]
    assert small.catalog_path.read_bytes() == before


def test_submissions_at_once_all_survive(small: World, tmp_path: Path) -> None:
    names = [f"at-once-{number}" for number in range(4)]
    together = threading.Barrier(len(names))

    def one(name: str) -> bool:
        together.wait()
        return submit(world, id=name, tasks=["math"]).success

    # An ephemeral instance is one SQLite connection, which threads cannot share. Neither can they share the redirection
    # of stdout, which would leave processes behind.
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text(yaml.safe_dump({"compute_logs": NO_CAPTURE}))
    with persistent_instance(tmp_path / "home") as instance:
        world = World(small.catalog_path, small.data, instance)
        with ThreadPoolExecutor(len(names)) as pool:
            assert all(pool.map(one, names))
        assert sorted(request.id for request in world.catalog.merge_requests) == names
        assert sorted(partitions(world)) == names
