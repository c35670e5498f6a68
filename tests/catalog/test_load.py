"""Catalog files: what is accepted, and that every refusal names line, entry and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from simmerge_core import load_catalog
from simmerge_core.errors import CatalogError

GOOD = """\
version: 1
base: {id: base, path: checkpoints/base}
checkpoints:
  - {id: math-01, path: checkpoints/math-01, domain: math}
  - {id: code-01, hub: org/code, revision: 0123456789abcdef0123456789abcdef01234567, domain: code}
tasks:
  - id: math
    probes: tasks/math/probe.jsonl
    benchmarks:
      - {name: some_math, metrics: ["acc,none"], item_sets: {A: "0:10", B: "10:20"}}
merge_requests:
  - {id: pair, task: math, k: 2}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks" / "math").mkdir(parents=True)
    (tmp_path / "tasks" / "math" / "probe.jsonl").write_text('{"prompt": "1+1="}\n')
    return tmp_path


def _load(folder: Path, text: str):  # type: ignore[no-untyped-def]
    (folder / "catalog.yaml").write_text(text)
    return load_catalog(folder / "catalog.yaml")


def test_a_good_catalog_has_absolute_paths_and_lookups(folder: Path) -> None:
    catalog = _load(folder, GOOD)
    assert catalog.checkpoint("math-01").path == folder / "checkpoints" / "math-01"
    assert catalog.checkpoint("base") is catalog.base
    assert catalog.task("math").probes.is_file()
    assert catalog.task("math").metric == "acc,none"
    assert catalog.domains == {"math-01": "math", "code-01": "code"}
    assert [str(a) for a in catalog.actions("paper")] == ["linear@0.5", "slerp@0.5", "ties@0.5"]
    assert catalog.merge_request("pair").targets == ("math",)


def test_weights_of_a_request(folder: Path) -> None:
    catalog = _load(folder, GOOD.replace("task: math, k: 2", "tasks: [math], weights: [2], k: 2"))
    assert catalog.merge_request("pair").weights == (2.0,)
    assert _load(folder, GOOD).merge_request("pair").weights is None


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("math-01, path", "../x, path", 4, "'../x'"),
        ("id: code-01", "id: math-01", 5, "used twice"),
        ("id: code-01", "id: MATH-01", 5, "used twice"),
        ("id: code-01", "id: '123'", 5, "at least one letter"),
        ("id: code-01", "id: base", 5, "used twice"),
        ("domain: code", "domian: code", 5, "not a known key"),
        ("revision: 0123456789abcdef0123456789abcdef01234567", "revision: main", 5, "40-digit commit"),
        ("hub: org/code", "hub: org/code, path: x", 5, "exactly one of path"),
        ("tasks/math/probe.jsonl", "tasks/none.jsonl", 8, "has no probes"),
        ("task: math", "task: maths", 12, "unknown task 'maths'"),
        ("k: 2", "k: 3", 12, "wants 3 checkpoints of 2"),
        ("k: 2", "k: 2, checkpoints: [math-01, nope]", 12, "unknown checkpoint 'nope'"),
        ("k: 2", "k: 2, actions: wide", 12, "no action set 'wide'"),
        ('metrics: ["acc,none"]', "metrics: []", 10, "benchmarks[0] 'some_math'"),
        ('A: "0:10"', "A: first", 10, "start:stop"),
        ("version: 1", "version: 2", 1, "version"),
        ("id: code-01", "id: '1e5'", 5, "a number or a truth value"),
        ('metrics: ["acc,none"]', 'metrics: ["acc,none", "acc,none"]', 10, "named twice"),
        ('item_sets: {A: "0:10", B: "10:20"}', "item_sets: {}", 10, "item_sets"),
        ("merge_requests:", "labels: {test_share: 0.6, validation_share: 0.4}\nmerge_requests:", 11, "no pair for"),
        ("merge_requests:", "action_sets: {../x: [linear, slerp]}\nmerge_requests:", 11, "'../x'"),
        ("merge_requests:", "action_sets: {paper-reverse: [linear, slerp]}\nmerge_requests:", 11, "rename it"),
        ("merge_requests:", "action_sets: {mine: [linear, blend]}\nmerge_requests:", 11, "'blend' is unknown"),
        ("merge_requests:", "action_sets: {mine: [linear, linear@0.5]}\nmerge_requests:", 11, "linear@0.5 twice"),
        ("merge_requests:", "action_sets: {mine: [linear]}\nmerge_requests:", 11, "fewer than two"),
        ("task: math, k: 2", "tasks: [math, math], k: 2", 12, "'math' twice"),
        ("task: math, k: 2", "tasks: [math], weights: [1, 2], k: 2", 12, "weights [1.0, 2.0] for 1 tasks"),
        ("task: math, k: 2", "tasks: [math], weights: [0], k: 2", 12, "not all zero"),
        ("task: math, k: 2", "tasks: [math], weights: [-1], k: 2", 12, "greater than or equal to 0"),
        ("task: math, k: 2", "tasks: [math], weights: [much], k: 2", 12, "weights"),
        ("task: math, k: 2", "tasks: [math], weights: [.inf], k: 2", 12, "weights"),
        ("task: math, k: 2", "tasks: [math], weights: [1], how: min, k: 2", 12, "for the mean only"),
        ("task: math, k: 2", "task: math, weights: [1], k: 2", 12, "one per entry of tasks"),
        ("merge_requests:", "version: 1\nmerge_requests:", 11, "'version' occurs a second time"),
        ("merge_requests:", 'discover: [{folder: "a\\0b"}]\nmerge_requests:', 11, "no file name can"),
        ("merge_requests:", "labels: {retrain_after: 1.0e+308}\nmerge_requests:", 11, "less than or equal to 1000"),
        ("path: checkpoints/math-01", 'path: "a\\0b"', 4, "no file name can"),
        ("path: checkpoints/math-01", 'path: "a\\ud800"', 4, "no file name can"),
        ("path: checkpoints/math-01", "path: ~nobody-of-this-name/x", 4, "home of an unknown user"),
    ],
)
def test_each_mistake_is_named_with_its_line(folder: Path, old: str, new: str, line: int, said: str) -> None:
    assert old in GOOD
    with pytest.raises(CatalogError) as caught:
        _load(folder, GOOD.replace(old, new))
    message = str(caught.value)
    assert said in message
    assert f"line {line}:" in message
    assert "\n" not in message


@pytest.mark.parametrize("value", ['!!int ""', "!!bool x", "!!timestamp x", '"\\ud800"'])
def test_a_value_that_is_none_of_its_kind_is_a_mistake_in_the_file(folder: Path, value: str) -> None:
    with pytest.raises(CatalogError, match=r"catalog\.yaml.*line 1\b") as caught:
        _load(folder, GOOD.replace("version: 1", f"version: {value}"))
    assert "\n" not in str(caught.value)


def test_a_link_in_a_circle_is_a_checkpoint_that_is_not_there(folder: Path) -> None:
    (folder / "drop").mkdir()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "math-01").symlink_to("math-01")
    catalog = _load(folder, GOOD.replace("merge_requests:", "discover: [{folder: drop}]\nmerge_requests:"))
    assert catalog.checkpoint_ids == ("math-01", "code-01")


def test_one_item_set_name_is_common_to_all_benchmarks(folder: Path) -> None:
    other = '      - {name: more_math, metrics: ["acc,none"], item_sets: {X: "0:10", Y: "10:20"}}\n'
    with pytest.raises(CatalogError, match=r"line 7: the benchmarks have no item set in common"):
        _load(folder, GOOD.replace("merge_requests:", other + "merge_requests:"))


def test_a_benchmark_is_declared_once_per_task(folder: Path) -> None:
    again = '      - {name: some_math, metrics: ["f1,none"]}\n'
    with pytest.raises(CatalogError, match="benchmark 'some_math' is declared twice"):
        _load(folder, GOOD.replace("merge_requests:", again + "merge_requests:"))


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "not valid YAML"), ("- 1", "not a mapping"), ("", "not a mapping")]
)
def test_files_that_are_no_catalog(folder: Path, text: str, said: str) -> None:
    with pytest.raises(CatalogError, match=said):
        _load(folder, text)


def test_a_missing_catalog_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="simmerge demo"):
        load_catalog(tmp_path / "none.yaml")


def test_a_folder_in_place_of_the_catalog_says_so(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="is a folder: name the catalog file"):
        load_catalog(tmp_path)


def test_unknown_names_list_the_known_ones(folder: Path) -> None:
    catalog = _load(folder, GOOD)
    with pytest.raises(CatalogError, match="declares base, math-01, code-01"):
        catalog.checkpoint("math-02")
    with pytest.raises(CatalogError, match="no task 'x'"):
        catalog.task("x")


def test_yaml_tags_cannot_build_python_objects(folder: Path) -> None:
    with pytest.raises(CatalogError, match="not valid YAML"):
        _load(folder, GOOD + "extra: !!python/object/apply:os.system ['true']\n")


@pytest.mark.parametrize("value", ["9" * 5000, "2020-13-45", "!!int abc", "!!timestamp x", "[" * 3000])
def test_values_that_yaml_cannot_convert(folder: Path, value: str) -> None:
    with pytest.raises(CatalogError, match="is not valid YAML"):
        _load(folder, f"{GOOD}x: {value}\n")


def test_a_probes_name_that_no_file_system_takes(folder: Path) -> None:
    with pytest.raises(CatalogError, match="has no probes"):
        _load(folder, GOOD.replace("tasks/math/probe.jsonl", "x" * 5000))
