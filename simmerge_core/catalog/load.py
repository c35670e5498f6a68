"""Reading a catalog file: every error names the file, the line, the entry and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import ValidationError

from simmerge_core.catalog.discovery import with_discovered
from simmerge_core.catalog.model import Benchmark, Catalog, CheckpointEntry, MergeRequest, Task
from simmerge_core.errors import CatalogError


def load_catalog(path: str | Path, *, text: str | None = None) -> Catalog:
    """Read and validate a catalog; relative paths in it are taken from its own folder.

    Only the file itself and the presence of the probe files are looked at: whether each checkpoint's folder is sound is
    `simmerge catalog check`'s question, so that one broken checkpoint does not hide the others. Folders of `discover`
    are looked into, and those that hold a whole checkpoint are added.

    Parameters
    ----------
    text
        Read instead of the file's own content.

    Raises
    ------
    CatalogError
        Naming file, line and entry, what is wrong and what to do.
    """
    path = Path(path).expanduser().absolute()
    text = read_text(path) if text is None else text
    try:
        return _load(path, text)
    except CatalogError:
        raise
    except Exception as error:  # by whatever it cannot be used, the last good one is to stay in force
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise CatalogError(f"Catalog {path} cannot be used ({what}): correct it.") from error


def read_text(path: Path) -> str:
    """The content of a catalog file; raises CatalogError."""
    if path.is_dir():
        raise CatalogError(f"The catalog {path} is a folder: name the catalog file in it.")
    if not path.is_file():
        raise CatalogError(
            f"There is no catalog file {path}: create it, or run `simmerge demo` to train the demo catalog."
        )
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogError(f"Catalog {path} cannot be read ({error.strerror}): correct its permissions.") from error
    except ValueError as error:
        raise CatalogError(f"Catalog {path} is not valid YAML: {' '.join(str(error).split())}.") from error


def _load(path: Path, text: str) -> Catalog:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # nesting without end exhausts the stack
        raise CatalogError(f"Catalog {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    repeated = _repeated_key(root)
    if repeated is not None:
        raise CatalogError(
            f"Catalog {path}, line {repeated.start_mark.line + 1}: the key {repeated.value!r} occurs a second time in "
            "its mapping, and YAML would drop the first: join both."
        )
    if not isinstance(raw, dict):
        raise CatalogError(f"Catalog {path} is not a mapping: start it with `version: 1`, base, checkpoints and tasks.")
    line_of = _lines(root)
    try:
        catalog = Catalog.model_validate(raw)
    except ValidationError as error:
        raise CatalogError(_sentence(path, error, raw, line_of)) from error
    _check_references(path, catalog, line_of)
    return with_discovered(_with_absolute_paths(catalog, path))


class _Loader(yaml.SafeLoader):
    """Says where a value stands that is none of its kind; PyYAML lets through whatever its converters raise."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r} is no {kind}", node.start_mark
            ) from error


def _repeated_key(node: yaml.Node | None) -> yaml.ScalarNode | None:
    """The first key that its mapping has already had."""
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))  # aliases may lead in a circle
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        return key
                    keys.add(key.value)
                waiting.append(value)
    return None


def _lines(root: yaml.Node | None) -> Callable[[Iterable[int | str]], int]:
    """A function from a location in the data to the line (from 1) of its closest node."""

    def line(location: Iterable[int | str]) -> int:
        node = root
        found = node.start_mark.line if node is not None else 0
        for part in location:
            child = None
            if isinstance(node, yaml.MappingNode):
                child = next((v for k, v in node.value if k.value == str(part)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                child = node.value[part]
            if child is None:
                break
            node, found = child, child.start_mark.line
        return found + 1

    return line


def _entry(raw: Any, location: tuple[int | str, ...]) -> str:
    """The entry's place in words, with the ids on the way: ``checkpoints[3] 'math-01' domain``."""
    words, node = "", raw
    for part in location:
        words += f"[{part}]" if isinstance(part, int) else f" {part}"
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            break
        name = node.get("id", node.get("name")) if isinstance(node, dict) else None
        words += f" {name!r}" if isinstance(name, str) else ""
    return words.strip() or "the file"


_REMEDIES = {
    "missing": "is missing: add it",
    "extra_forbidden": "is not a known key: remove it or correct its spelling",
}


def _sentence(path: Path, error: ValidationError, raw: Any, line_of: Callable[[Iterable[int | str]], int]) -> str:
    first = error.errors(include_url=False)[0]
    location = tuple(first["loc"])
    what = _REMEDIES.get(first["type"])
    if what is None:
        what = f"is not usable: {first['msg'].removeprefix('Value error, ')}"
    more = f" ({error.error_count() - 1} more like it)" if error.error_count() > 1 else ""
    return f"Catalog {path}, line {line_of(location)}: {_entry(raw, location)} {what}{more}."


def _check_references(path: Path, catalog: Catalog, line_of: Callable[[Iterable[int | str]], int]) -> None:
    def fail(location: tuple[int | str, ...], text: str) -> NoReturn:
        raise CatalogError(f"Catalog {path}, line {line_of(location)}: {text}")

    # Folders are named after ids, and some file systems fold letter case.
    seen = {catalog.base.id.casefold()}
    for number, entry in enumerate(catalog.checkpoints):
        if entry.id.casefold() in seen:
            fail(
                ("checkpoints", number),
                f"checkpoint id {entry.id!r} is used twice (letter case aside): give each its own id.",
            )
        seen.add(entry.id.casefold())
    seen = set()
    for number, task in enumerate(catalog.tasks):
        if task.id.casefold() in seen:
            fail(("tasks", number), f"task id {task.id!r} is used twice (letter case aside): give each its own id.")
        seen.add(task.id.casefold())
        probes = path.parent / task.probes.expanduser()
        size = _size(probes)
        if not size:
            fail(
                ("tasks", number, "probes"),
                f"task {task.id!r} has no probes ({probes} is {'not there' if size is None else 'empty'}): "
                'write one {"prompt": ...} per line into it.',
            )
    declared = [set(benchmark.item_sets) for task in catalog.tasks for benchmark in task.benchmarks]
    if not set.intersection(*declared):
        fail(
            ("tasks",),
            "the benchmarks have no item set in common: declare the same names (such as A and B) for each, since one "
            "is chosen on and the other scored on.",
        )
    seen = set()
    for number, request in enumerate(catalog.merge_requests):
        problem = request_problem(catalog, request, complete=not catalog.discover)
        if request.id.casefold() in seen:
            problem = "is used twice: give each request its own id"
        if problem is not None:
            fail(("merge_requests", number), f"merge request {request.id!r} {problem}.")
        seen.add(request.id.casefold())


def _size(file: Path) -> int | None:
    """Bytes of a file; None where there is none, or its name is none that the file system takes."""
    try:
        return file.stat().st_size if file.is_file() else None
    except OSError:
        return None


def request_problem(catalog: Catalog, request: MergeRequest, *, complete: bool = True) -> str | None:
    """Why the catalog cannot serve a request, to be read after its name; None if it can.

    Parameters
    ----------
    complete
        Whether its list of checkpoints is all there will be. Where folders come and go, a request whose checkpoints are
        not there fails by itself.
    """
    unknown_tasks = [task for task in request.targets if task not in catalog.task_ids]
    if unknown_tasks:
        return f"names the unknown task {unknown_tasks[0]!r}: known are {', '.join(catalog.task_ids)}"
    pool = catalog.checkpoint_ids if request.checkpoints == "all" else request.checkpoints
    unknown = [checkpoint for checkpoint in pool if checkpoint not in catalog.checkpoint_ids]
    if unknown and complete:
        return f"names the unknown checkpoint {unknown[0]!r}: declare it under checkpoints"
    if len(set(pool)) != len(pool):
        return "names a checkpoint twice: name each once"
    if request.k > len(pool) and (complete or request.checkpoints != "all"):
        return f"wants {request.k} checkpoints of {len(pool)}: lower k or add checkpoints"
    try:
        catalog.actions(request.actions)
    except CatalogError as error:
        return f"cannot be served: {str(error).rstrip('.')}"
    return None


def _with_absolute_paths(catalog: Catalog, path: Path) -> Catalog:
    folder = path.parent

    def checkpoint(entry: CheckpointEntry) -> CheckpointEntry:
        return entry if entry.path is None else entry.model_copy(update={"path": folder / entry.path.expanduser()})

    def benchmark(entry: Benchmark) -> Benchmark:
        return (
            entry
            if entry.include_path is None
            else entry.model_copy(update={"include_path": folder / entry.include_path.expanduser()})
        )

    def task(entry: Task) -> Task:
        return entry.model_copy(
            update={
                "probes": folder / entry.probes.expanduser(),
                "benchmarks": tuple(benchmark(b) for b in entry.benchmarks),
            }
        )

    absolute = catalog.model_copy(
        update={
            "base": checkpoint(catalog.base),
            "checkpoints": tuple(checkpoint(c) for c in catalog.checkpoints),
            "discover": tuple(
                d.model_copy(update={"folder": folder / d.folder.expanduser()}) for d in catalog.discover
            ),
            "tasks": tuple(task(t) for t in catalog.tasks),
        }
    )
    absolute._path = path
    return absolute
