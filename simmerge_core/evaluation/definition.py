"""What determines a score besides the weights, and its content hash. Reads files only; imports no lm-eval.

The definition of a benchmark is the lm-eval YAML it names with everything that it includes, the source of the Python
functions that it refers to, and the bytes of its local data files; paths are left out, so that a catalog may be
moved. A benchmark of lm-eval's own is identified by its name and lm-eval's version.
"""

from __future__ import annotations

import glob
import importlib.metadata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from simmerge_core.errors import EvaluationError
from simmerge_core.files import hash_file, hash_json

if TYPE_CHECKING:
    from simmerge_core.catalog import Benchmark, Task

_TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def task_key(task: Task) -> str:
    """SHA-256 (hex) of how `task` is scored: definitions, data, metrics, item sets, seeds and settings.

    The task's id and its probes are no part of it, nor are paths.

    Raises
    ------
    EvaluationError
        If a local definition or data file is missing or not readable.
    """
    return hash_json([_benchmark(task.id, benchmark) for benchmark in task.benchmarks])


def evaluation_key(recipe_key: str, task_key: str, *, tokenizer_key: str = "") -> str:
    """SHA-256 (hex) under which a score is stored.

    Parameters
    ----------
    recipe_key
        ``plans.recipe_key`` of the scored model.
    task_key
        `task_key` of the task.
    tokenizer_key
        `tokenizer_key` of the folder whose tokenizer was used; fingerprints of checkpoints do not cover it.
    """
    return hash_json({"recipe": recipe_key, "task": task_key, "tokenizer": tokenizer_key})


def tokenizer_key(folder: Path) -> str:
    """SHA-256 (hex) of the tokenizer files of a checkpoint folder."""
    return hash_json({name: hash_file(folder / name) for name in _TOKENIZER_FILES if (folder / name).is_file()})


def definition_file(benchmark: Benchmark) -> Path | None:
    """The YAML under the benchmark's include path that defines it, or None for one of lm-eval's own.

    Raises
    ------
    EvaluationError
        If the include path is not a folder, a YAML in it cannot be read, or two define the name.
    """
    if benchmark.include_path is None:
        return None
    if not benchmark.include_path.is_dir():
        raise EvaluationError(
            f"Benchmark {benchmark.name!r}: include_path {benchmark.include_path} is not a folder: correct the path."
        )
    found = [
        f for f in sorted(benchmark.include_path.rglob("*.yaml")) if _name_in(f, f.stat().st_mtime_ns) == benchmark.name
    ]
    if len(found) > 1:
        raise EvaluationError(
            f"Benchmark {benchmark.name!r} is defined twice, in {found[0]} and {found[1]}: remove one of them."
        )
    return found[0] if found else None


def definition(file: Path) -> dict[str, Any]:
    """The merged content of an lm-eval YAML: includes resolved, ``!function`` as ``{"function": name, "file": path}``.

    Raises
    ------
    EvaluationError
        If a file is missing, is not YAML, or includes itself.
    """
    return _merged(file.resolve(), ())


def data_files(content: Mapping[str, Any], folder: Path) -> dict[str, list[Path]]:
    """Local data files of a definition by split; a relative path is taken from the definition's own folder.

    A relative path that is not there is taken from the working folder, as lm-eval itself does.
    """
    given = (content.get("dataset_kwargs") or {}).get("data_files") or {}
    splits = given if isinstance(given, Mapping) else {"train": given}
    found: dict[str, list[Path]] = {}
    for split, texts in splits.items():
        found[str(split)] = []
        for text in [texts] if isinstance(texts, str) else texts:
            if "://" in text:
                continue
            here, there = folder / Path(text).expanduser(), Path(text).absolute()
            candidates = [p for p in (here, there) if p.is_file()] or sorted(map(Path, glob.glob(str(here))))
            if not candidates:
                raise EvaluationError(f"Data file {here} (split {split!r}) is not there: write it or correct its path.")
            found[str(split)] += candidates[:1] if candidates[0] in (here, there) else candidates
    return found


def _benchmark(task_id: str, benchmark: Benchmark) -> dict[str, Any]:
    settings = {
        "name": benchmark.name,
        "metrics": list(benchmark.metrics),
        "item_sets": dict(benchmark.item_sets),
        "seeds": list(benchmark.seeds),
        "num_fewshot": benchmark.num_fewshot,
        "batch_size": benchmark.batch_size,
    }
    try:
        file = definition_file(benchmark)
        if file is None:
            return {**settings, "lm_eval": importlib.metadata.version("lm_eval")}
        content = definition(file)
        data = {
            split: [_hash(path) for path in paths]
            for split, paths in data_files(content, file.resolve().parent).items()
        }
    except EvaluationError as error:
        raise EvaluationError(f"Task {task_id!r}: {error}") from error
    kwargs = {k: v for k, v in (content.get("dataset_kwargs") or {}).items() if k != "data_files"}
    return {**settings, "definition": _plain({**content, "dataset_kwargs": kwargs}), "data": data}


def _hash(path: Path) -> str:
    state = path.stat()
    return _hash_once(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1024)
def _hash_once(path: Path, _modified: int, _size: int) -> str:
    return hash_file(path)


def _plain(value: Any) -> Any:
    """JSON-ready form; a function is its name and the hash of the file that it stands in."""
    if isinstance(value, _Function):
        return {"function": value.name, "source": _hash(value.file) if value.file is not None else None}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


class _Function:
    """A ``!function module.name`` of a YAML: the name, and the module's file where it stands beside the YAML."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        beside = folder / (name.rpartition(".")[0].replace(".", "/") + ".py")
        self.file = beside if beside.is_file() else None


def _merged(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if file in above:
        raise EvaluationError(f"lm-eval definition {file} includes itself: remove the circle.")
    content = dict(_read(file, file.stat().st_mtime_ns if file.is_file() else 0))
    included = content.pop("include", [])
    merged: dict[str, Any] = {}
    for name in [included] if isinstance(included, str) else included:
        part = _merged((file.parent / name).resolve(), (*above, file))
        part.pop("task_list", None)
        merged.update(part)
    return {**merged, **content}


@lru_cache(maxsize=512)
def _name_in(file: Path, modified: int) -> str | None:
    name = _read(file, modified).get("task")
    return name if isinstance(name, str) else None


@lru_cache(maxsize=512)
def _read(file: Path, _modified: int) -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda _, node: _Function(str(node.value), file.parent))
    try:
        content = yaml.load(file.read_bytes(), Loader=Loader)  # noqa: S506 - derived from SafeLoader
    except FileNotFoundError as error:
        raise EvaluationError(f"lm-eval definition {file} is not there: correct the path that names it.") from error
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError, OSError) as error:
        raise EvaluationError(
            f"lm-eval definition {file} is not valid YAML: {' '.join(str(error).split())}."
        ) from error
    if not isinstance(content, dict):
        raise EvaluationError(f"lm-eval definition {file} is not a mapping: write `task: NAME` and its settings.")
    return content
