"""``simmerge catalog request``: a merge request by the command line, checked before the file is touched."""

from __future__ import annotations

import json

import pytest
import yaml
from cli_world import World

from simmerge_core.catalog import load_catalog

REQUEST = ("catalog", "request", "both", "--task", "math=2", "--task", "code", "--k", 2, "--policy", "lints")


def test_it_is_declared_and_listed(world: World) -> None:
    before = world.catalog.read_text("utf-8") + "# kept\n"
    world.catalog.write_text(before, "utf-8")
    pool = ("--checkpoint", "math-01", "--checkpoint", "code-01")
    result = world.run(*REQUEST, *pool, "--actions", "paper", "--top", 5, "--json")
    assert result.exit_code == 0, result.stderr
    written = {
        "id": "both",
        "tasks": ["math", "code"],
        "weights": [2.0, 1.0],
        "k": 2,
        "checkpoints": ["math-01", "code-01"],
        "actions": "paper",
        "top": 5,
        "policy": "lints",
    }
    assert json.loads(result.stdout)["added"] == written
    after = world.catalog.read_text("utf-8")
    assert yaml.safe_load(after)["merge_requests"][-1] == written
    assert [line for line in after.splitlines() if line in before.splitlines()] == before.splitlines()
    listed = json.loads(world.run("catalog", "list", "--json").stdout)["merge_requests"][-1]
    assert listed == json.loads(result.stdout)["merge_request"]
    (row,) = [line for line in world.run("catalog", "list").stdout.splitlines() if line.split()[:1] == ["both"]]
    assert row.split()[-2:] == ["paper", "lints"]


def test_all_checkpoints_and_the_selector_unless_told(world: World) -> None:
    result = world.run("catalog", "request", "best", "--task", "math", "--k", 3)
    assert result.exit_code == 0
    assert result.stdout == f"Added merge request best (math; k 3; policy selector) to {world.catalog}.\n"
    request = load_catalog(world.catalog).merge_request("best")
    assert (request.task, request.checkpoints, request.policy) == ("math", "all", "selector")


def test_again_is_no_error_and_changes_nothing(world: World) -> None:
    assert world.run(*REQUEST).exit_code == 0
    before = world.state()
    result = world.run(*REQUEST)
    assert result.exit_code == 0
    assert "declares the same merge request both already" in result.stdout
    again = json.loads(world.run(*REQUEST, "--json").stdout)
    assert again["added"] is None
    assert again["merge_request"]["id"] == "both"
    assert world.state() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("both", "--task", "code", "--k", "2"), "already has a merge request 'both'"),
        (("../x", "--task", "code", "--k", "2"), "cannot be a folder name"),
        (("new", "--task", "chess", "--k", "2"), "unknown task 'chess'"),
        (("new", "--task", "math=much", "--k", "2"), "'much'"),
        (("new", "--task", "math", "--task", "math", "--k", "2"), "'math' is named twice"),
        (("new", "--task", "math=-1", "--k", "2"), "weights[0]"),
        (("new", "--task", "math", "--k", "2", "--checkpoint", "math-77"), "unknown checkpoint 'math-77'"),
        (("new", "--task", "math", "--k", "2", "--checkpoint", "math-01"), "wants 2 checkpoints of 1"),
        (("new", "--task", "math", "--k", "9"), "k 9"),
        (("new", "--task", "math", "--k", "2", "--actions", "nosuch"), "no action set 'nosuch'"),
        (("new", "--task", "math", "--k", "2", "--policy", "best"), "policy 'best'"),
        (("new", "--task", "math", "--k", "2", "--how", "max"), "how 'max'"),
        (("new", "--task", "math", "--k", "2", "--top", "0"), "top 0"),
        (
            ("new", "--task", "math", "--task", "code", "--k", "2", "--how", "min", "--policy", "linucb"),
            "policy linucb for the minimum",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(world: World, words: tuple[str, ...], said: str) -> None:
    world.run(*REQUEST)
    before = world.state()
    result = world.run("catalog", "request", *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert world.state() == before
