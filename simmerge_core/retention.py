"""What under a data root can be made again and is no longer asked for: caches, and what killed writers left."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simmerge_core.catalog import Catalog
from simmerge_core.errors import TableError
from simmerge_core.storage import Location, ObjectPath, listed, removed, version_of
from simmerge_core.tables import DataRoot

LEAST_DAYS = 1.0
"""Nothing younger is touched: it may be in the making."""

_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Expendable:
    """A file or folder that can go.

    Attributes
    ----------
    why
        In words, for the log.
    bytes
        Size of all its files.
    days
        Since its newest file was written.
    """

    path: Location
    why: str
    bytes: int
    days: float


def expendable(root: DataRoot, catalog: Catalog, *, keep_days: float, now: float) -> list[Expendable]:
    """Caches that nothing in the catalog asks for, and leftovers, sorted by path.

    Results are never among them: labels, evaluations, selectors, plans, merged checkpoints and bandits stay, whatever
    the catalog says.

    Parameters
    ----------
    keep_days
        Least age in days, at least `LEAST_DAYS`.
    now
        Seconds since the epoch.

    Raises
    ------
    TableError
        If `keep_days` is less than `LEAST_DAYS`.
    """
    if not keep_days >= LEAST_DAYS:
        raise TableError(
            f"keep_days is {keep_days:g}, but what is younger than a day may be in the making: give 1 or more."
        )
    found = []
    for path, why, least in (
        *((p, why, keep_days) for p, why in _caches(root, catalog)),
        *((p, "left by a writer that was killed", LEAST_DAYS) for p in _leftovers(root.root)),
    ):
        size, newest = _extent(path)
        days = (now - newest) / _SECONDS
        if days >= least:
            found.append(Expendable(path, why, size, days))
    return sorted(found, key=lambda e: str(e.path))


def remove(found: Sequence[Expendable]) -> int:
    """Delete them; bytes that became free."""
    freed = 0
    for each in found:
        removed(each.path)
        freed += each.bytes if not each.path.exists() else 0
    return freed


def _caches(root: DataRoot, catalog: Catalog) -> Iterator[tuple[Location, str]]:
    # A folder that is not whole at this moment is a checkpoint again when it is.
    checkpoints = {catalog.base.id, *catalog.checkpoint_ids, *(left.name for left in catalog.left_out)}
    tasks = set(catalog.task_ids)
    for folder in _folders(root.root / "probe_activations", "checkpoint=*/task=*"):
        checkpoint, task = (urllib.parse.unquote(part.partition("=")[2]) for part in folder.parts[-2:])
        if checkpoint not in checkpoints:
            yield folder, f"probe cache of checkpoint {checkpoint}, which the catalog no longer declares"
        elif task not in tasks:
            yield folder, f"probe cache on task {task}, which the catalog no longer declares"
    for folder in _folders(root.root / "experiments" / "models", "[!.]*"):
        yield folder, "selector that an experiment trained; it is trained again where it is needed"


def _folders(place: Location, pattern: str) -> Sequence[Location]:
    found: list[Location] = [*place.glob(pattern)]
    return sorted(found, key=str)


def _leftovers(root: Location) -> Iterator[Location]:
    """Temporary files and folders; what lies inside one is not listed on its own."""
    if isinstance(root, ObjectPath):  # an upload that ended early has no name; only trials of exclusive creation have
        yield from (o.path for o in listed(root) if o.path.name.startswith(".") and o.path.suffix == ".tmp")
        return
    for path in sorted(root.rglob(".*")):
        temporary = path.suffix in (".tmp", ".old")
        if temporary and not any(p.suffix in (".tmp", ".old") and p.name.startswith(".") for p in path.parents):
            yield path


def _extent(path: Location) -> tuple[int, float]:
    """Bytes, and the time of the newest file."""
    if isinstance(path, ObjectPath):
        objects = listed(path) or [version_of(path)]
        return sum(o.bytes for o in objects), max(o.seconds for o in objects)
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    stats = [f.stat() for f in files]
    return sum(s.st_size for s in stats), max((s.st_mtime for s in stats), default=path.stat().st_mtime)
