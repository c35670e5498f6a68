"""What lies under a place: one listing, whatever the number of folders."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from simmerge_core.errors import StorageError
from simmerge_core.storage.filesystem import asking, file_system
from simmerge_core.storage.location import Location
from simmerge_core.storage.object_path import ObjectPath


@dataclass(frozen=True, slots=True)
class File:
    """A file or an object.

    Attributes
    ----------
    bytes
        Size.
    version
        What changes when it is written: an object's ETag, a file's time of writing in nanoseconds.
    seconds
        When it was written, since the epoch.
    """

    path: Location
    bytes: int
    version: str | int
    seconds: float


@dataclass(frozen=True, slots=True)
class ObjectFile(File):
    """An object as a listing or a HEAD says it is."""

    path: ObjectPath
    version: str


@dataclass(slots=True)
class _Kept:
    """Listings of what lies right below a root: one of each, made when something below it is first asked for."""

    root: ObjectPath
    listings: dict[ObjectPath, dict[ObjectPath, ObjectFile]] = field(default_factory=dict)

    def covering(self, place: ObjectPath) -> dict[ObjectPath, ObjectFile] | None:
        """The listing that holds what is below a place; None for one that is not below the root."""
        depth = len(self.root.parts)
        if self.root.scheme != place.scheme or place.parts[:depth] != self.root.parts or len(place.parts) == depth:
            return None
        top = self.root / place.parts[depth]
        if top not in self.listings:
            self.listings[top] = {file.path: file for file in _asked(top)}
        return self.listings[top]


_KEPT: ContextVar[_Kept | None] = ContextVar("_KEPT", default=None)


@contextlib.contextmanager
def kept_listings(root: Location) -> Iterator[None]:
    """Answer what is asked about objects below a data root from one listing of each table and artefact.

    For a caller that asks thousands of questions about one moment; what is written inside is not seen. Nothing changes
    for a folder of this machine, which costs nothing to ask anew.
    """
    token = _KEPT.set(_Kept(root) if isinstance(root, ObjectPath) else None)
    try:
        yield
    finally:
        _KEPT.reset(token)


def remembered(path: ObjectPath) -> tuple[bool, ObjectFile | None]:
    """Whether a kept listing knows of a place, and the object there, if there is one."""
    kept = _KEPT.get()
    files = kept.covering(path) if kept is not None else None
    return (False, None) if files is None else (True, files.get(path))


def listed(place: ObjectPath, *, anew: bool = False) -> list[ObjectFile]:
    """Every object below a place, sorted: one LIST for each thousand, or as a kept listing says unless `anew`."""
    kept = None if anew else _KEPT.get()
    files = kept.covering(place) if kept is not None else None
    if files is None:
        return _asked(place)
    depth = len(place.parts)
    return [f for f in files.values() if f.path.parts[:depth] == place.parts and len(f.path.parts) > depth]


def _asked(place: ObjectPath) -> list[ObjectFile]:
    try:
        with asking(place):
            found = file_system(place.scheme).find(place.key, detail=True)
    except FileNotFoundError:
        return []
    infos = {ObjectPath(place.scheme, name): info for name, info in found.items() if info["type"] == "file"}
    return [object_file(path, infos[path]) for path in sorted(infos) if path != place]


def object_file(path: ObjectPath, info: dict[str, Any]) -> ObjectFile:
    """An object from what fsspec says of it."""
    version = next((info[name] for name in ("ETag", "etag", "generation") if info.get(name)), None)
    if version is None:
        raise StorageError(
            f"{path} has no ETag, so a change of it could not be seen: put the data root on a store that gives one."
        )
    times = (info.get(name) for name in ("LastModified", "last_modified", "mtime", "updated"))
    seconds = next((time.timestamp() for time in times if isinstance(time, datetime)), 0.0)
    return ObjectFile(path, int(info["size"]), str(version).strip('"'), seconds)


def version_of(path: ObjectPath, *, anew: bool = False) -> ObjectFile:
    """An object by one HEAD, or as a kept listing says unless `anew`; raises FileNotFoundError."""
    known, file = remembered(path)
    if known and not anew:
        if file is None:
            raise FileNotFoundError(f"There is no object {path}.")
        return file
    with asking(path):
        info = file_system(path.scheme).info(path.key)
    if info["type"] != "file":
        raise FileNotFoundError(f"There is no object {path}.")
    return object_file(path, info)


def size_of(path: Location) -> int:
    """Bytes of a file or object: one HEAD."""
    return path.stat().st_size if isinstance(path, Path) else version_of(path).bytes


def files_below(place: Location, *, pattern: str = "*") -> list[File]:
    """Every file below a place whose name matches, sorted."""
    if isinstance(place, Path):
        stats = sorted(_walked(str(place), pattern))
        return [File(Path(file), stat.st_size, stat.st_mtime_ns, stat.st_mtime) for file, stat in stats]
    return [file for file in listed(place) if fnmatch.fnmatchcase(file.path.name, pattern)]


def _walked(folder: str, pattern: str) -> Iterator[tuple[str, os.stat_result]]:
    """Files below a folder with what is known of them; several times faster than `Path.rglob` with a `stat` each."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walked(entry.path, pattern)
        elif entry.is_file() and fnmatch.fnmatchcase(entry.name, pattern):
            with contextlib.suppress(FileNotFoundError):  # renamed or removed meanwhile
                yield entry.path, entry.stat()
