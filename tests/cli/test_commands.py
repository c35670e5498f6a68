"""What each command does when all is well."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
import yaml
from cli_results import train_selector, write_features
from cli_world import World
from safetensors.torch import load_file

from simmerge_core.tables import TABLES

COMMANDS = ("demo", "features", "plan", "merge", "evaluate", "report", "tables", "ui")


CATALOG = ("add", "request", "list", "check")


@pytest.mark.parametrize("command", [*((c,) for c in COMMANDS), *(("catalog", c) for c in CATALOG)])
def test_help_has_an_example_and_json(world: World, command: tuple[str, ...]) -> None:
    result = world.run(*command, "--help")
    assert result.exit_code == 0
    examples = [line.strip() for line in result.stdout.partition("Example:")[2].splitlines() if line.strip()]
    assert examples
    assert all(line.startswith(f"simmerge {' '.join(command)}") for line in examples)
    assert "--json" in result.stdout


def test_no_arguments_list_every_command(world: World) -> None:
    result = world.run("--help")
    for command in (*COMMANDS, "catalog"):
        assert re.search(rf"^  {command} ", result.stdout, re.M)
    assert "SIMMERGE_DATA" in result.stdout
    assert world.run("nosuch").exit_code == 2


def test_merge_is_the_mean_of_both(world: World) -> None:
    a, b = world.checkpoint("math-01"), world.checkpoint("code-01")
    result = world.run("merge", a, b, "--operator", "linear", "--alpha", 0.25, "--out", "merged", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["plan"] == "linear@0.25(math-01, code-01)"
    merged, first, second = (load_file(folder / "model.safetensors") for folder in (Path("merged"), a, b))
    for name, tensor in merged.items():
        expected = 0.75 * first[name].double() + 0.25 * second[name].double()
        assert (tensor.double() - expected).abs().max() < 1e-6


def test_merge_by_id_finds_the_base_and_replaces_only_when_told(world: World) -> None:
    words = ("merge", "math-01", "code-01", "instruct-01", "-o", "task_arithmetic", "-o", "slerp@0.3", "--out", "m")
    assert world.run(*words).exit_code == 0
    card = json.loads(Path("m/simmerge.json").read_text("utf-8"))
    assert card["plan"]["text"] == "slerp@0.3(task_arithmetic@0.5(math-01, code-01), instruct-01)"
    assert world.run(*words).exit_code == 2
    assert world.run(*words, "--replace").exit_code == 0


def test_merge_of_folders_with_one_name(world: World) -> None:
    for side, id in (("one", "math-01"), ("two", "code-01")):
        (world.folder / side).mkdir()
        world.checkpoint(id).rename(world.folder / side / "model")
    result = world.run("merge", "one/model", "two/model", "-o", "linear", "--out", "m", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["plan"] == "linear@0.5(model, model-2)"


def test_catalog_add_keeps_the_file_and_declares_the_checkpoint(world: World) -> None:
    before = world.catalog.read_text("utf-8") + "# kept\n"
    world.catalog.write_text(before, "utf-8")
    result = world.run("catalog", "add", "math-99", world.checkpoint("math-01"), "--domain", "math", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["added"]["path"] == "checkpoints/math-01"
    after = world.catalog.read_text("utf-8")
    added = [line for line in after.splitlines() if line not in before.splitlines()]
    assert added == ["- {id: math-99, path: checkpoints/math-01, domain: math}"]
    assert yaml.safe_load(after)["checkpoints"][-1]["id"] == "math-99"
    listed = json.loads(world.run("catalog", "list", "--json").stdout)
    assert [entry["id"] for entry in listed["checkpoints"]][-1] == "math-99"


def test_catalog_check_of_a_sound_catalog(world: World) -> None:
    result = world.run("catalog", "check", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["broken"] == 0
    assert {entry["kind"] for entry in found["entries"]} == {"base", "checkpoint", "task"}


def test_evaluate_gives_what_the_library_gives(world: World) -> None:
    from simmerge_core.catalog import load_catalog
    from simmerge_core.evaluation import evaluate

    result = world.run("evaluate", "math-01", "--task", "math", "--json")
    assert result.exit_code == 0, result.stderr
    told = pl.DataFrame(json.loads(result.stdout)["scores"])
    expected = evaluate(world.checkpoint("math-01"), load_catalog(world.catalog).task("math"))
    assert told["utility"].to_list() == pytest.approx(expected["utility"].to_list())
    assert set(told["task"]) == {"math"}


def test_tables(world: World) -> None:
    assert {row["table"] for row in json.loads(world.run("tables", "--json").stdout)} == set(TABLES)
    columns = json.loads(world.run("tables", "merge_labels", "--json").stdout)
    assert {"action", "utility"} <= {row["column"] for row in columns}
    assert world.run("tables", "nosuch").exit_code == 2


def test_features_are_printed_and_exported(world: World) -> None:
    write_features(world.data, ("math-01", "code-01", "rag-01"), "math")
    one = json.loads(world.run("features", "--task", "math", "--pair", "math-01", "code-01", "--json").stdout)
    assert [(row["a"], row["b"]) for row in one] == [("code-01", "math-01"), ("math-01", "code-01")]
    for suffix, read in ((".csv", pl.read_csv), (".parquet", pl.read_parquet), (".json", pl.read_json)):
        assert world.run("features", "--out", f"rows{suffix}").exit_code == 0
        assert read(f"rows{suffix}").height == 6
    text = world.run("features").stdout
    assert "weight_cosine" in text
    for wrong in (("--task", "chess"), ("--pair", "math-01", "nosuch"), ("--out", "rows.xls")):
        result = world.run("features", *wrong)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1


def test_plan_ranks_and_names_the_command_that_executes(world: World) -> None:
    ids = ("math-01", "code-01", "rag-01", "instruct-01", "code-02", "rag-02")
    write_features(world.data, ids, "math")
    train_selector(world.data)
    asked = ("plan", *ids[:4], "--task", "math", "--k", 3, "--top", 4)
    found = json.loads(world.run(*asked, "--json").stdout)
    assert [plan["rank"] for plan in found["plans"]] == [1, 2, 3, 4]
    best = found["plans"][0]
    assert len(best["order"]) == 3
    assert len(best["actions"]) == 2
    assert "math-01" in best["order"]
    result = world.run(*asked)
    assert f"simmerge merge {' '.join(best['order'])} --operator {best['actions'][0]}" in result.stderr
    for wrong in (
        ("plan", "math-01", "math-01", "--task", "math"),
        ("plan", "math-01", "--task", "math"),
        ("plan", "math-01", "code-01", "--task", "chess"),
        ("plan", "math-01", "nosuch", "--task", "math"),
        ("plan", "math-01", "code-01", "--task", "math", "--k", "3"),
        ("plan", "math-01", "code-01", "--task", "math", "--how", "max"),
        ("plan", "math-01", "code-01", "--task", "math", "--actions", "nosuch"),
    ):
        refused = world.run(*wrong)
        assert refused.exit_code == 2, wrong
        assert refused.stderr.startswith("Error: ")
        assert refused.stderr.count("\n") == 1


def test_results_that_are_not_there(world: World) -> None:
    for words in (("features",), ("plan", "math-01", "code-01", "--task", "math"), ("report",)):
        before = world.state()
        result = world.run(*words)
        assert result.exit_code == 2
        assert result.stderr.startswith("Error: ")
        assert world.state() == before


def test_ui_is_bound_to_this_machine_and_this_data(world: World) -> None:
    told = json.loads(world.run("ui", "--port", 3456, "--json").stdout)
    command = told["command"]
    assert command[command.index("-h") + 1] == "127.0.0.1"
    assert command[command.index("-p") + 1] == "3456"
    assert told["environment"]["SIMMERGE_DATA"] == str(world.data)
    assert told["environment"]["SIMMERGE_CATALOG"] == str(world.catalog)
