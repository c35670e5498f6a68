"""What cannot work is refused before work is spent, and leaves every earlier file as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pipeline_world import SIGNALS, World

from simmerge_core.errors import SimMergeError, TableError
from simmerge_core.tables import DataRoot
from simmerge_pipeline.event_log import persistent_instance
from simmerge_pipeline.materialize import Summary, main
from simmerge_pipeline.resources import ComputeResource
from simmerge_pipeline.stamps import stamp

LABELS = ("standalone_scores", "merge_labels")


def files(world: World) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in world.data.rglob("*") if file.is_file()}


@pytest.mark.integration
def test_a_metric_key_that_does_not_exist_spends_no_merge(small: World) -> None:
    small.materialize(*SIGNALS)
    before = files(small)
    tasks = [task.model_dump(mode="json") for task in small.catalog.tasks]
    tasks[0]["benchmarks"][0]["metrics"] = ["nope,none"]
    small.declare(tasks=tasks)
    failed = small.materialize(*LABELS).failed
    # Every partition fails, also those that hold no pair: none is written from a definition that is wrong.
    assert len(failed) == 2 * 4
    assert {text.count("nope,none") for text in failed.values()} == {1}
    assert files(small) == before


def test_a_data_root_that_is_a_file(small: World) -> None:
    small.data.write_text("x")
    with pytest.raises(TableError, match=r"data is not a folder; choose another place\."):
        small.materialize()


def test_a_probe_file_that_is_not_text_stops_its_task_only(small: World) -> None:
    small.catalog.tasks[0].probes.write_bytes(b'{"prompt": "\xff"}\n')
    summary = small.materialize("checkpoints", "probe_activations")
    assert all("is not UTF-8" in text for text in summary.failed.values())
    assert next(asset.computed for asset in summary.assets if asset.name == "checkpoints") == 4


def test_an_action_set_of_the_catalogs_own_makes_the_selector_stale(small: World) -> None:
    root = DataRoot(small.data)
    before = stamp("selector", small.catalog, root)
    small.declare(action_sets={"mine": ["linear@0.3", "slerp@0.7"]})
    assert stamp("selector", small.catalog, root) != before


@pytest.mark.integration
def test_a_checkpoint_that_leaves_the_catalog_makes_plans_stale(finished: tuple[World, Summary]) -> None:
    world, catalog = finished[0], finished[0].catalog
    request = next(r.id for r in catalog.merge_requests if r.checkpoints == "all")
    fewer = catalog.model_copy(update={"checkpoints": catalog.checkpoints[1:]})
    assert stamp("merge_plans", fewer, world.root, request) != stamp("merge_plans", catalog, world.root, request)


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: 2020-13-45"])
def test_a_damaged_dagster_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "dagster.yaml").write_text(text)
    with pytest.raises(SimMergeError, match=r"dagster\.yaml is not"), persistent_instance(tmp_path):
        pass


def test_a_dagster_home_that_is_a_file(small: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home := tmp_path / "home").write_text("x")
    options = {"--catalog": small.catalog_path, "--data": small.data, "--dagster-home": home}
    assert main([os.fspath(part) for option in options.items() for part in option]) == 2
    told = "".join(capsys.readouterr().err.split())  # the console breaks lines where the path happens to end
    assert "Fileexists" in told
    assert "Traceback" not in told


def test_fewer_than_no_workers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--workers", "-1"])
    assert ended.value.code == 2
    assert "--workers -1 is less than 0" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["lots", "-1", "1.5"])
def test_workers_that_are_no_number_are_named(monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    monkeypatch.setenv("SIMMERGE_WORKERS", workers)
    with pytest.raises(SimMergeError, match=f"SIMMERGE_WORKERS is '{workers}', which is no number"):
        ComputeResource.from_environment()
