"""Adding to a catalog file: what is declared afterwards, and that a refusal leaves every byte as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from simmerge_core import load_catalog
from simmerge_core.catalog.edit import add_checkpoint, add_merge_request
from simmerge_core.errors import CatalogError

HEAD = """\
# Our catalog.
version: 1
base: {id: base, path: checkpoints/base}
checkpoints:
  - {id: math-01, path: checkpoints/math-01, domain: math}  # the best
  - {id: code-01, path: checkpoints/code-01, domain: code}
tasks:
  - &math {id: math, probes: p.jsonl, benchmarks: [{name: m, metrics: ["acc,none"]}]}
  - {id: code, probes: p.jsonl, benchmarks: [{name: c, metrics: ["acc,none"]}]}
"""

DECLARED = {
    "no key": "",
    "empty": "merge_requests: []  # none yet\n",
    "flow": "merge_requests: [{id: pair, task: math, k: 2}]\n",
    "flow items": "merge_requests:\n  - {id: pair, task: math}  # by hand\n# the end\n",
    "block items": "merge_requests:\n- id: pair\n  tasks:\n  - math\n  - code\n  weights:\n  - 1\n  - 2\n\n# the end\n",
    "alias": "merge_requests:\n  - id: pair\n    tasks: &both [math, code]\n  - {id: again, tasks: *both}\n",
}

ASKED = {"id": "both", "tasks": ["math", "code"], "weights": [2, 1], "k": 2, "checkpoints": ["math-01", "code-01"]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "p.jsonl").write_text('{"prompt": "1+1="}\n')
    (tmp_path / "catalog.yaml").write_text(HEAD)
    return tmp_path / "catalog.yaml"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("layout", DECLARED)
def test_a_request_is_declared_and_every_old_line_stays(file: Path, layout: str, line_end: str) -> None:
    old = HEAD + DECLARED[layout]
    file.write_text(old, newline=line_end)
    before = load_catalog(file)
    submitted = add_merge_request(file, {**ASKED, "policy": "lints"})
    after = load_catalog(file)
    assert submitted.new
    assert submitted.catalog == after
    assert after.merge_requests == (*before.merge_requests, submitted.request)
    assert submitted.request.targets == ("math", "code")
    assert submitted.request.weights == (2.0, 1.0)
    assert submitted.request.policy == "lints"
    assert after.model_copy(update={"merge_requests": before.merge_requests}) == before
    with file.open(newline="") as handle:
        new = handle.read()
    assert new.count("\r\n") == (new.count("\n") if line_end == "\r\n" else 0)
    lines = iter(new.splitlines())
    kept = [line for line in old.splitlines() if not line.startswith("merge_requests: [")]
    assert all(line in lines for line in kept)


def test_only_what_is_not_as_by_default_is_written(file: Path) -> None:
    add_merge_request(file, {"id": "one", "tasks": ["math"], "weights": None, "how": "mean", "k": 2, "top": 20})
    add_merge_request(file, {"id": "two", "tasks": ["math", "code"], "how": "min", "k": 2, "top": 5})
    added = (
        "merge_requests:\n  - {id: one, task: math, k: 2}\n  - {id: two, tasks: [math, code], how: min, k: 2, top: 5}\n"
    )
    assert file.read_text() == HEAD + added


def test_the_same_request_again_changes_nothing(file: Path) -> None:
    file.write_text(HEAD + "merge_requests:\n- id: one\n  task: math\n  k: 2\n  policy: selector\n")
    before = file.read_bytes()
    again = add_merge_request(file, {"id": "one", "tasks": ["math"], "k": 2, "checkpoints": "all"})
    assert not again.new
    assert again.request == load_catalog(file).merge_request("one")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "pair"}, "already has a merge request 'pair'"),
        ({"id": "PAIR"}, "already has a merge request 'pair'"),
        ({"id": "../x"}, "cannot be a folder name"),
        ({"id": "12"}, "cannot be a folder name"),
        ({"tasks": ["chess", "math"]}, "unknown task 'chess': known are math, code"),
        ({"tasks": []}, "needs either task or tasks"),
        ({"tasks": ["math", "math"]}, "'math' twice"),
        ({"tasks": ["a/b", "math"]}, "tasks[0] 'a/b'"),
        ({"checkpoints": ["math-01", "math-77"]}, "unknown checkpoint 'math-77'"),
        ({"checkpoints": ["math-01", "../x"]}, "checkpoints[1] '../x'"),
        ({"checkpoints": ["math-01", "math-01"]}, "a checkpoint twice"),
        ({"checkpoints": ["math-01"]}, "wants 2 checkpoints of 1"),
        ({"k": 3}, "wants 3 checkpoints of 2"),
        ({"k": 9}, "k 9"),
        ({"k": 1}, "k 1"),
        ({"top": 0}, "top 0"),
        ({"actions": "nosuch"}, "no action set 'nosuch'"),
        ({"policy": "best"}, "policy 'best'"),
        ({"how": "max"}, "how 'max'"),
        ({"how": "min"}, "count for the mean only"),
        ({"how": "min", "weights": None, "policy": "linucb"}, "policy linucb for the minimum"),
        ({"weights": [1]}, "weights [1.0] for 2 tasks"),
        ({"weights": [1, -1]}, "weights[1] -1"),
        ({"weights": [1, float("nan")]}, "weights[1] nan"),
        ({"colour": "red"}, "colour 'red'"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_the_file(file: Path, change: dict[str, object], said: str) -> None:
    file.write_text(HEAD + DECLARED["flow items"])
    before = file.read_bytes()
    with pytest.raises(CatalogError) as caught:
        add_merge_request(file, {**ASKED, **change})
    sentence = str(caught.value)
    assert said in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert ".tmp" not in sentence
    assert file.read_bytes() == before
    assert sorted(f.name for f in file.parent.iterdir()) == ["catalog.yaml", "p.jsonl"]


@pytest.mark.parametrize("text", ["a: [", "version: 1\n", None], ids=["no YAML", "no catalog", "no file"])
def test_a_broken_catalog_is_not_added_to(file: Path, text: str | None) -> None:
    if text is None:
        file.unlink()
        file = file.parent / "none" / "catalog.yaml"
    else:
        file.write_text(text)
    with pytest.raises(CatalogError, match=r"catalog\.yaml"):
        add_merge_request(file, ASKED)
    with pytest.raises(CatalogError, match=r"catalog\.yaml"):
        add_checkpoint(file, {"id": "math-02", "path": "x", "domain": "math"})
    assert (file.read_text() if text else file.exists()) == (text or False)


def test_a_write_that_fails_leaves_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simmerge_core.files._sync_file", full)
    with pytest.raises(CatalogError, match=r"cannot be replaced \(No space left on device\)"):
        add_merge_request(file, ASKED)
    assert file.read_bytes() == before
    assert sorted(f.name for f in file.parent.iterdir()) == ["catalog.yaml", "p.jsonl"]


def test_a_checkpoint_whose_id_is_taken_names_the_file_itself(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(CatalogError) as caught:
        add_checkpoint(file, {"id": "MATH-01", "path": "x", "domain": "math"})
    assert str(caught.value).startswith(f"Catalog {file}, line ")
    assert file.read_bytes() == before


def test_a_link_stays_a_link_and_permissions_stay(file: Path, tmp_path: Path) -> None:
    file.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    add_merge_request(link, ASKED)
    assert link.is_symlink()
    assert load_catalog(file).merge_request("both").k == 2
    assert file.stat().st_mode & 0o777 == 0o640


def _many(file: Path, name: str, count: int = 5) -> None:
    for number in range(count):
        add_merge_request(file, {"id": f"{name}-{number}", "tasks": ["math"], "k": 2})


def _in_threads(file: Path) -> None:
    together = threading.Barrier(4)

    def one(name: str) -> None:
        together.wait()
        _many(file, name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, "abcd"))


def _in_processes(file: Path) -> None:
    context = get_context("spawn")
    processes = [context.Process(target=_many, args=(file, name)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


@pytest.mark.parametrize("at_once", [_in_threads, _in_processes])
def test_additions_at_once_all_survive(file: Path, at_once: Callable[[Path], None]) -> None:
    at_once(file)
    found = [request.id for request in load_catalog(file).merge_requests]
    assert sorted(found) == [f"{name}-{number}" for name in "abcd" for number in range(5)]
    assert file.read_text().startswith(HEAD)


def test_the_same_request_at_once_is_declared_once(file: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        submitted = list(pool.map(lambda _: add_merge_request(file, ASKED), range(4)))
    assert sorted(one.new for one in submitted) == [False, False, False, True]
    assert [request.id for request in load_catalog(file).merge_requests] == ["both"]
