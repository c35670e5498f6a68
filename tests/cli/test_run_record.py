"""The record of a run, the closing tables, and what interruption and other failures look like."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_world import World

from simmerge_cli.closing import print_summary
from simmerge_cli.run_record import RunRecord, peak_process_bytes, tree_bytes


def test_runs_are_appended_and_memory_is_plausible(tmp_path: Path) -> None:
    file = tmp_path / "data" / "demo_run.json"
    for finished in (False, True):
        record = RunRecord()
        with record.watching():
            record.enter("training")
            record.add("training", 1.234, {"workers": 2})
        record.write(file, finished=finished)
    runs = json.loads(file.read_text("utf-8"))["runs"]
    assert [run["finished"] for run in runs] == [False, True]
    assert runs[1]["stages"][0]["seconds"] == 1.23
    assert runs[1]["peak_process_bytes"] > 10 * 2**20


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
def test_the_tree_holds_this_process() -> None:
    assert 10 * 2**20 < tree_bytes(os.getpid()) <= 4 * peak_process_bytes()


def test_a_damaged_record_is_started_anew(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("{", "utf-8")
    RunRecord().write(tmp_path / "r.json", finished=True)
    assert len(json.loads((tmp_path / "r.json").read_text("utf-8"))["runs"]) == 1


def test_closing_tables_tell_predicted_and_executed(capsys: pytest.CaptureFixture[str]) -> None:
    pairwise = {
        "utility": {"simmerge": 0.5, "best_fixed": 0.4, "oracle": None},
        "gap_closed": {"simmerge": 61.0, "best_fixed": 50.0},
        "test_pairs": 7,
        "split": "test",
        "target": "expert_task",
    }
    request = {
        "plan": "linear@0.5(a, b)",
        "predicted_utility": 0.4321,
        "models": [
            {"role": "simmerge", "model": "x", "utility": {"A": 0.1, "B": 0.5678}},
            {"role": "parent", "model": "a", "utility": {"A": 0.1, "B": 0.2}},
        ],
    }
    print_summary({"pairwise": pairwise, "merge_requests": {"two": request}, "plans": {"3": {"simmerge": 0.3}}})
    text = capsys.readouterr().out
    for shown in ("0.4321", "0.5678", "0.2000", "SimMerge", "61", "k = 3"):
        assert shown in text
    print_summary({})


def test_ctrl_c_ends_with_130(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("simmerge_core.catalog.load_catalog", interrupted)
    result = world.run("catalog", "list")
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr


def test_a_place_that_cannot_be_written(world: World) -> None:
    (world.folder / "file").write_text("", "utf-8")
    a, b = world.checkpoint("math-01"), world.checkpoint("code-01")
    result = world.run("merge", a, b, "-o", "linear", "--out", world.folder / "file" / "below")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_demo_refuses_before_it_leaves_a_trace(world: World) -> None:
    before = world.state()
    for words in (("--preset", "huge"), ("--full", "--preset", "tiny")):
        result = world.run("demo", *words, "--out", "demo", "--dagster-home", "home")
        assert result.exit_code == 2
        assert "Error: " in result.stderr
    assert world.state() == before


def test_demo_records_each_stage_and_says_where_everything_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from simmerge_pipeline import materialize

    asset = materialize.AssetSummary("merge_labels", partitions=3, computed=2, failed={"a|t": "It broke."}, seconds=1.5)
    calls = []

    def materialized(**options: object) -> materialize.Summary:
        calls.append(options)
        return materialize.Summary([asset], 1.5)

    monkeypatch.setattr(materialize, "materialize_all", materialized)
    words = ("demo", "--preset", "tiny", "--workers", 1, "--out", world.catalog.parent, "--dagster-home", "home")
    result = world.run(*words, "--json")
    assert result.exit_code == 1  # a partition failed
    told = json.loads(result.stdout)
    assert [stage["name"] for stage in told["run"]["stages"]] == ["training", "merge_labels"]
    assert told["failed"] == {"merge_labels[a|t]": "It broke."}
    assert told["places"]["ui"].startswith("simmerge ui --catalog ")
    assert calls[0]["data_root"] == world.data
    assert json.loads((world.data / "demo_run.json").read_text("utf-8"))["runs"][0]["finished"] is False
    result = world.run(*words)
    assert "merge_labels" in result.stdout
    assert "Error: merge_labels[a|t]: It broke." in result.stderr
