"""Bad input: one clear sentence on stderr, a non-zero exit code, earlier results as they were."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_damage import DAMAGES
from cli_world import World

WRONG_METRIC = "exact_match,none"


def _fails(world: World, *arguments: object, names: tuple[str, ...], code: int = 2) -> str:
    """Run, and check everything that every refusal has in common; returns the sentence."""
    before = world.state()
    result = world.run(*arguments)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert result.exit_code == code, result.output
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    assert lines[0].rstrip().endswith(".")
    for name in names:
        assert name in lines[0]
    assert result.stdout == ""
    assert world.state() == before
    return lines[0]


@pytest.mark.parametrize(("damage", "said"), DAMAGES.items(), ids=[d.__name__ for d in DAMAGES])
class TestBrokenCheckpoint:
    def test_catalog_add_refuses(self, world: World, damage: Callable[[Path], None], said: str) -> None:
        folder = world.checkpoint("math-02")
        world.edit(lambda raw: raw["checkpoints"].pop(1))
        world.edit(lambda raw: raw.pop("merge_requests"))
        damage(folder)
        _fails(world, "catalog", "add", "new-01", folder, "--domain", "math", names=("new-01", said))

    def test_merge_refuses(self, world: World, damage: Callable[[Path], None], said: str) -> None:
        damage(world.checkpoint("math-02"))
        _fails(world, "merge", "code-01", "math-02", "-o", "linear", "--out", "merged", names=("math-02", said))
        assert not Path("merged").exists()

    def test_check_reports_it_and_the_others(self, world: World, damage: Callable[[Path], None], said: str) -> None:
        damage(world.checkpoint("math-02"))
        before = world.state()
        result = world.run("catalog", "check", "--no-tasks")
        assert result.exit_code == 1
        problems = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(problems) == 1
        assert "math-02" in problems[0]
        assert said in problems[0]
        states = {line.split()[1]: line.split()[2] for line in result.stdout.splitlines() if "checkpoint " in line}
        assert states.pop("math-02") == "broken"
        assert set(states.values()) >= {"ok"}
        assert all(state == "ok" for id, state in states.items() if id != "id")
        assert world.state() == before


@pytest.mark.parametrize("damage", [d for d, said in DAMAGES.items() if said not in ("vocabular", "shapes")])
def test_evaluate_refuses_a_broken_checkpoint(world: World, damage: Callable[[Path], None]) -> None:
    # A model of another shape or vocabulary can be scored; only merging needs equal ones.
    damage(world.checkpoint("math-02"))
    _fails(world, "evaluate", "math-02", "--task", "math", names=(DAMAGES[damage],))


@pytest.mark.parametrize("id", ["../x", "a/b", "..", "", "-x", "007", "x" * 200, "a\nb"])
def test_ids_that_cannot_be_folders(world: World, id: str) -> None:
    before = world.state()
    result = world.run("catalog", "add", "--domain", "math", "--", id, world.checkpoint("math-01"))
    assert result.exit_code == 2
    assert "cannot be a folder name" in result.stderr
    assert world.state() == before


def test_an_id_with_dots_in_the_file(world: World) -> None:
    world.edit(lambda raw: raw["checkpoints"][0].update(id="../x"))
    _fails(world, "catalog", "list", names=("'../x'", "line", "checkpoints[0]"))


def test_duplicate_ids(world: World) -> None:
    place = world.checkpoint("math-01")
    _fails(world, "catalog", "add", "math-01", place, "--domain", "math", names=("math-01", "already"))
    _fails(world, "catalog", "add", "MATH-01", place, "--domain", "math", names=("MATH-01", "already"))
    _fails(world, "catalog", "add", "base", place, "--domain", "math", names=("base", "already"))
    world.edit(lambda raw: raw["checkpoints"].append(dict(raw["checkpoints"][0])))
    _fails(world, "catalog", "list", names=("math-01", "twice", "line"))


def test_unknown_task(world: World) -> None:
    _fails(world, "catalog", "add", "x-1", world.checkpoint("math-01"), "--domain", "chess", names=("'chess'", "math"))
    _fails(world, "evaluate", "math-01", "--task", "chess", names=("'chess'", "math"))


def test_unknown_checkpoint(world: World) -> None:
    _fails(world, "merge", "math-01", "math-77", "-o", "linear", "--out", "m", names=("'math-77'",))
    _fails(world, "evaluate", "math-77", "--task", "math", names=("'math-77'",))
    _fails(world, "evaluate", "../base", "--task", "math", names=("'../base'",))


def test_task_without_probes(world: World) -> None:
    world.edit(lambda raw: raw["tasks"][0].update(probes="tasks/math/none.jsonl"))
    _fails(world, "catalog", "check", names=("'math'", "no probes", "line"))
    world.edit(lambda raw: raw["tasks"][0].pop("probes"))
    _fails(world, "catalog", "list", names=("'math'", "probes", "missing"))


def test_metric_key_that_does_not_exist(world: World) -> None:
    world.edit(lambda raw: raw["tasks"][0]["benchmarks"][0].update(metrics=[WRONG_METRIC]))
    _fails(world, "evaluate", "math-01", "--task", "math", names=("math", WRONG_METRIC))
    result = world.run("catalog", "check", "--json")
    assert result.exit_code == 1
    assert WRONG_METRIC in result.stdout
    assert result.stdout.count('"ok": false') == 1


def test_no_catalog_at_all(world: World) -> None:
    world.catalog.unlink()
    _fails(world, "catalog", "list", names=("no catalog file", "simmerge demo"))


@pytest.mark.parametrize("text", ["", "a: [", "- 1\n- 2\n", "version: 9\n", "\x00\x01"])
def test_files_that_are_no_catalog(world: World, text: str) -> None:
    world.catalog.write_text(text, "utf-8")
    _fails(world, "catalog", "check", names=(str(world.catalog),))


def test_merge_refuses_what_it_cannot_do(world: World) -> None:
    a, b = world.checkpoint("math-01"), world.checkpoint("code-01")
    merge = ("merge", a, b, "--out", "m")
    _fails(world, "merge", a, "--out", "m", "-o", "linear", names=("at least two",))
    _fails(world, *merge, "-o", "nosuch", names=("'nosuch'", "linear"))
    _fails(world, *merge, "-o", "linear@1.5", names=("alpha", "1.5"))
    _fails(world, *merge, "-o", "linear", "--alpha", "7", names=("alpha", "7"))
    _fails(world, *merge, "-o", "ties,nosuch=1", names=("nosuch",))
    _fails(world, *merge, "-o", "linear", "-o", "slerp", names=("1 step", "2 operators"))
    _fails(world, *merge, "-o", "task_arithmetic", names=("--base",))
    _fails(world, *merge, "-o", "linear", "--dtype", "int3", names=("int3",))
    _fails(world, "merge", a, b, "-o", "linear", "--out", a, names=("not empty",))
    _fails(world, "merge", a, b, "-o", "linear", "--out", a, "--replace", names=("input",))
    _fails(world, "merge", a, b, "-o", "linear", "--out", world.catalog.parent, "--replace", names=("input",))
    _fails(world, "merge", a, b, "-o", "linear", "--out", world.data, "--replace", names=(str(world.data),))
    _fails(world, "merge", a, b, "-o", "linear", "--out", world.catalog, names=("not a folder",))
    assert not Path("m").exists()


def test_a_device_that_is_not_there(world: World) -> None:
    merge = ("merge", "math-01", "code-01", "-o", "linear", "--out", "m")
    for command in (merge, ("evaluate", "math-01", "--task", "math"), ("demo", "--preset", "tiny", "--out", "d")):
        _fails(world, *command, "--device", "nosuch", names=("'nosuch'", "cpu"))
        _fails(world, *command, "--device", "meta", names=("'meta'", "cpu"))
    assert not Path("d").exists()


def test_a_checkpoint_that_is_a_link_to_itself(world: World) -> None:
    folder = world.checkpoint("math-02")
    shutil.rmtree(folder)
    folder.symlink_to(folder)
    _fails(world, "merge", "code-01", "math-02", "-o", "linear", "--out", "m", names=("math-02", "does not exist"))


def test_debug_shows_where_it_came_from(world: World) -> None:
    result = world.run("--debug", "catalog", "add", "../x", world.checkpoint("math-01"), "--domain", "math")
    assert result.exit_code != 0
    assert type(result.exception).__name__ == "CatalogError"
