"""The key of a task changes with everything that a score depends on, and with nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simmerge_core.catalog import Task
from simmerge_core.errors import EvaluationError
from simmerge_core.evaluation import evaluation_key, task_key, tokenizer_key
from simmerge_core.evaluation.definition import definition


@pytest.fixture
def copied(definitions: Path, tmp_path: Path, task_of: Callable[..., Task]) -> Callable[..., Task]:
    """Declare tasks over a copy of the definitions that may be changed."""
    folder = tmp_path / "copy"
    shutil.copytree(definitions, folder)

    def declare(name: str, *metrics: str, **settings: Any) -> Task:
        task = task_of(name, *metrics, **settings)
        moved = tuple(b.model_copy(update={"include_path": folder}) for b in task.benchmarks)
        return task.model_copy(update={"benchmarks": moved})

    return declare


def _edit(task: Task, file: str, old: str, new: str) -> None:
    folder = task.benchmarks[0].include_path
    assert folder is not None
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))


def test_paths_ids_and_probes_are_no_part(copied: Callable[..., Task], task_of: Callable[..., Task]) -> None:
    task = task_of("own", "right,none")
    key = task_key(task)
    assert task_key(copied("own", "right,none")) == key
    assert task_key(task.model_copy(update={"id": "other", "probes": Path("elsewhere")})) == key
    assert len(key) == 64


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("items.jsonl", "answer", "answers"),
        ("own.yaml", "metric: right", "metric: left"),
        ("_common_yaml", 'target_delimiter: ""', 'target_delimiter: " "'),
        ("scoring.py", "float(results", "1.0 - float(results"),
    ],
)
def test_content_is_part(file: str, old: str, new: str, copied: Callable[..., Task]) -> None:
    task = copied("own", "right,none")
    before = task_key(task)
    _edit(task, file, old, new)
    assert task_key(task) != before


def test_settings_are_part(task_of: Callable[..., Task]) -> None:
    keys = [
        task_key(task_of("likelihood", "acc,none")),
        task_key(task_of("likelihood", "acc,none", "probability")),
        task_key(task_of("likelihood", "acc,none", item_sets={"A": "0:40"})),
        task_key(task_of("likelihood", "acc,none", seeds=(1,))),
        task_key(task_of("likelihood", "acc,none", num_fewshot=1)),
        task_key(task_of("likelihood", "acc,none", batch_size=3)),
        task_key(task_of("choice", "acc,none")),
    ]
    assert len(set(keys)) == len(keys)


def test_missing_data_file_is_named(copied: Callable[..., Task]) -> None:
    task = copied("likelihood", "acc,none")
    _edit(task, "_common_yaml", "items.jsonl", "gone.jsonl")
    with pytest.raises(EvaluationError, match=r"Task 'letters': Data file .*gone\.jsonl"):
        task_key(task)


def test_a_name_defined_twice_is_refused(copied: Callable[..., Task]) -> None:
    task = copied("likelihood", "acc,none")
    folder = task.benchmarks[0].include_path
    assert folder is not None
    shutil.copy(folder / "likelihood.yaml", folder / "twin.yaml")
    with pytest.raises(EvaluationError, match="defined twice"):
        task_key(task)


def test_includes_are_merged_and_circles_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("include: b.yaml\ntask: x\nmine: 1\n")
    (tmp_path / "b.yaml").write_text("mine: 2\ntheirs: 3\n")
    assert definition(tmp_path / "a.yaml") == {"task": "x", "mine": 1, "theirs": 3}
    (tmp_path / "c.yaml").write_text("include: c.yaml\n")
    with pytest.raises(EvaluationError, match="includes itself"):
        definition(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("content", "words"), [("a: [", "not valid YAML"), ("- 1", "not a mapping"), ("\udcff", "not valid YAML")]
)
def test_unreadable_definitions_are_named(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(EvaluationError, match=rf"x\.yaml.*{words}"):
        definition(tmp_path / "x.yaml")


def test_evaluation_key_covers_all_three(checkpoint: Path, tmp_path: Path) -> None:
    words = tokenizer_key(checkpoint)
    assert words != tokenizer_key(tmp_path)
    keys = {
        evaluation_key("r", "t"),
        evaluation_key("r", "u"),
        evaluation_key("s", "t"),
        evaluation_key("r", "t", tokenizer_key=words),
    }
    assert len(keys) == 4


def test_keys_import_nothing_heavy(definitions: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from simmerge_core.catalog import Benchmark, Task\n"
        "from simmerge_core.evaluation import EvaluationStore, task_key\n"
        f"b = Benchmark(name='t_likelihood', include_path=pathlib.Path({str(definitions)!r}), metrics=('acc,none',))\n"
        "task_key(Task(id='x', probes='p', benchmarks=(b,)))\n"
        "assert not {'torch', 'lm_eval', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
