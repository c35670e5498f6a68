"""Checkpoints that are not written into the catalog: whole sub-folders of a folder that it names."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from simmerge_core.catalog.model import Catalog, CheckpointEntry, Discovery, Id, LeftOut
from simmerge_core.errors import CatalogError, CheckpointError, SimMergeError
from simmerge_core.ids import validate_id

CARD = "simmerge.yaml"
"""The file in a checkpoint's folder that says its domain."""

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


class _Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    domain: Id


@dataclass(frozen=True, slots=True)
class _Found:
    entry: CheckpointEntry
    quiet: float


def with_discovered(catalog: Catalog) -> Catalog:
    """The catalog with every whole checkpoint of its `discover` folders, sorted by id after the declared ones.

    Which order they arrived in does not matter, nor when the catalog is read, unless two have one id (letter case
    aside): the first keeps it. A folder that is not whole (yet), or cannot be an entry, is left out with a sentence in
    `Catalog.left_out` and keeps none of the others out.

    Parameters
    ----------
    catalog
        With absolute paths.

    Raises
    ------
    CatalogError
        If a folder to look into cannot be read: its checkpoints must not look as if they had been removed.
    """
    if not catalog.discover:
        return catalog
    declared = (catalog.base, *catalog.checkpoints)
    places = {os.path.realpath(entry.path) for entry in declared if entry.path is not None}
    looked_at: list[tuple[Path, _Found | str]] = []
    for discovery in catalog.discover:
        for folder in _sub_folders(catalog, discovery):
            if os.path.realpath(folder) in places:
                continue  # declared by hand, with what is said there
            try:
                entry = _entry(folder, discovery)
            except SimMergeError as error:
                looked_at.append((folder, str(error)))
                continue
            # What is dropped is labelled at once, which is spent in vain where no task is its own.
            problem = catalog.domain_problem(entry)
            looked_at.append((folder, problem or _Found(entry, discovery.quiet_seconds)))
    holders = _holders([(folder, found.entry.id) for folder, found in looked_at if isinstance(found, _Found)])
    holders |= {entry.id.casefold(): str(entry.path or entry.hub) for entry in declared}
    taken: dict[str, _Found] = {}
    left_out = []
    for folder, found in looked_at:
        if isinstance(found, str):
            left_out.append(LeftOut(folder.name, folder, found))
        elif (holder := holders[found.entry.id.casefold()]) != str(folder):
            why = f"{folder}: checkpoint id {folder.name!r} is used for {holder} already: rename the folder."
            left_out.append(LeftOut(folder.name, folder, why))
        else:
            taken[found.entry.id] = found
    entries = tuple(taken[id].entry for id in sorted(taken))
    whole = catalog.model_copy(update={"checkpoints": (*catalog.checkpoints, *entries)})
    whole._discovered = {id: taken[id].quiet for id in sorted(taken)}
    whole._left_out = tuple(left_out)
    return whole


def _holders(found: list[tuple[Path, str]]) -> dict[str, str]:
    """The folder that has each id, letter case aside: of several the one that was there first.

    An id that has results must not pass to whatever lands later under a name that happens to sort before it.
    """
    folders: dict[str, list[Path]] = {}
    for folder, id in found:
        folders.setdefault(id.casefold(), []).append(folder)
    return {
        id: str(min(same, key=lambda folder: (_first_change(folder), str(folder))) if len(same) > 1 else same[0])
        for id, same in folders.items()
    }


def _first_change(folder: Path) -> float:
    """Status change time of the file that has been in a folder longest, in ns (not that of its original)."""
    times = [float("inf")]
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                times.append(path.lstat().st_ctime_ns)
    return min(times)


def last_change(folder: Path) -> float:
    """When anything in a checkpoint's folder last changed, in seconds since the epoch.

    By status change, not by modification: copies may bring the modification times of their originals along.
    """
    times = []
    for path in folder.iterdir():
        with contextlib.suppress(
            FileNotFoundError
        ):  # removed while we looked, which changes the folder; or a dead link
            times.append(path.stat().st_ctime)
    return max((folder.stat().st_ctime, *times))


def _sub_folders(catalog: Catalog, discovery: Discovery) -> Iterator[Path]:
    try:
        inside = sorted(discovery.folder.iterdir())
        os.stat(os.path.join(discovery.folder, "."))  # may be listed and still not be entered
    except OSError as error:
        raise CatalogError(
            f"Catalog {catalog.path} discovers checkpoints in {discovery.folder}, which cannot be read "
            f"({error.strerror}): create or mount it, or remove it from discover."
        ) from error
    # Programs that copy folders name what they are at with a leading dot.
    return (path for path in inside if not path.name.startswith(".") and _may_be_folder(path))


def _may_be_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return True  # what cannot be looked at is left out with a sentence


def _entry(folder: Path, discovery: Discovery) -> CheckpointEntry:
    """The entry of a whole checkpoint folder; raises SimMergeError saying what is wrong with it."""
    id = validate_id("checkpoint", folder.name)
    try:
        domain = _domain(folder, discovery)
        problem = _problem(folder, _state(folder))
    except PermissionError as error:
        raise CheckpointError(
            f"Checkpoint {id!r}: {error.filename or folder} cannot be read ({error.strerror}): correct its permissions."
        ) from error
    except OSError as error:
        # A file may be renamed while it arrives; a link to nowhere, or a name too long, stays what it is.
        where = error.filename or folder
        raise CheckpointError(
            f"Checkpoint {id!r}: {where} cannot be read ({error.strerror}): wait if it is being copied, else copy it "
            "again or remove it."
        ) from error
    except SimMergeError:
        raise
    except Exception as error:  # files of others: whatever they bring about keeps none of the other folders out
        raise CheckpointError(
            f"Checkpoint {id!r}: {folder} cannot be used ({_reason(error)}): save it again."
        ) from error
    if problem is not None:
        raise CheckpointError(problem)
    return CheckpointEntry(id=id, path=folder, domain=domain)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and modification time of every file that may matter.

    An editor's lock is a hidden link to nowhere, and its backups come and go: a checkpoint stays whole meanwhile.
    """
    state = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        try:
            stat = path.stat()
        except FileNotFoundError:
            if path.suffix == ".safetensors":
                raise
            continue  # what is needed of it is missed below
        state.append((path.name, stat.st_size, stat.st_mtime_ns))
    return tuple(state)


def _domain(folder: Path, discovery: Discovery) -> str:
    card = folder / CARD
    if not card.is_file():
        if discovery.domain is None:
            raise CheckpointError(
                f"Checkpoint {folder.name!r} has no domain: write `domain: <task>` into {card}, or give its folder a "
                "domain under discover."
            )
        return discovery.domain
    try:
        return _Card.model_validate(yaml.safe_load(card.read_text(encoding="utf-8"))).domain
    except ValidationError as error:
        what = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
    except Exception as error:  # PyYAML lets through whatever its converters of numbers, dates and truth values raise
        what = _reason(error)
    raise CheckpointError(
        f"Checkpoint {folder.name!r}: {card} cannot be used ({what}): write `domain: <task>` into it, nothing else."
    )


@functools.lru_cache(maxsize=4096)
def _problem(folder: Path, state: tuple[tuple[str, int, int], ...]) -> str | None:
    """Why a folder is no whole checkpoint; looked at once per state, since every step reads the catalog."""
    from simmerge_core.checkpoints import open_checkpoint

    try:
        open_checkpoint(folder, name=folder.name)
    except CheckpointError as error:
        return str(error)
    found = [name for name, _, _ in state if name in _VOCABULARIES]
    if not found:
        return f"Checkpoint {folder.name!r}: {folder} has no tokenizer: copy it there, too."
    for name in found:
        if (folder / name).is_dir():
            return f"Checkpoint {folder.name!r}: {name} is a folder: copy the file of that name in its place."
        if name.endswith(".json") and not _ends_as_json(folder / name):
            return f"Checkpoint {folder.name!r}: {name} is truncated: copy it again."
    return None


def _ends_as_json(file: Path) -> bool:
    """Whether a file ends as a JSON object does; tokenizers are long, and the catalog is read by every step."""
    with file.open("rb") as handle:
        handle.seek(-min(file.stat().st_size, 64), 2)
        return handle.read().rstrip().endswith(b"}")
