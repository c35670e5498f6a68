"""Folders whose last file says that they are whole: an object store has no rename."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simmerge_core.errors import StorageError
from simmerge_core.storage.copies import local_copies
from simmerge_core.storage.filesystem import LARGE, asking, file_system
from simmerge_core.storage.listings import listed
from simmerge_core.storage.location import Location
from simmerge_core.storage.object_path import ObjectPath
from simmerge_core.storage.scratch import new_place
from simmerge_core.storage.writing import created, put

KEEP = ".keep"
"""An object that lets a folder exist in which nothing is yet."""

_TOGETHER = 8
_LOOKS = 5


@contextlib.contextmanager
def uploaded_folder(path: ObjectPath, *, last: str, once: bool = False) -> Iterator[Path]:
    """Yield a folder of this machine; its files take the place of those below `path` when the block ends well.

    The object `last` says that the folder is whole (`is_complete`): it is deleted first and put last, so that a
    folder which is being written, or whose writer was killed, counts as absent. Two writers at once are not kept
    apart.

    Parameters
    ----------
    once
        Leave a folder that is whole as it is, and let one of several writers put `last`; they must agree on the
        content of files of the same name.
    """
    temporary = new_place(path.name)
    temporary.mkdir()
    try:
        yield temporary
        if once and is_complete(path, last):
            return
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        ends = temporary / last
        if ends not in files:
            raise StorageError(f"Folder {path} cannot be uploaded without its file {last}.")
        there = [] if once else [file.path for file in listed(path)]
        if path / last in there:
            (path / last).unlink(missing_ok=True)
        targets = {path.joinpath(*file.relative_to(temporary).parts): file for file in files if file != ends}
        small = {target: file for target, file in targets.items() if file.stat().st_size < LARGE}
        with ThreadPoolExecutor(_TOGETHER, thread_name_prefix="upload") as pool:
            list(pool.map(put, small.values(), small.keys()))
        for target in targets.keys() - small.keys():
            put(targets[target], target)
        _delete([old for old in there if old not in targets and old != path / last])
        if once:
            created(path / last, ends.read_bytes())  # another writer's that came first is as good
        else:
            put(ends, path / last)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_complete(folder: Location, last: str) -> bool:
    """Whether a folder stands whole: a folder of this machine if it is there, since it is renamed into place."""
    return folder.is_dir() if isinstance(folder, Path) else (folder / last).is_file()


@contextlib.contextmanager
def local_folder(folder: Location, *, last: str) -> Iterator[Path]:
    """The folder itself if it is one of this machine, else a folder with copies of its objects, as they were at once.

    Raises
    ------
    FileNotFoundError
        If it is not there or not whole.
    StorageError
        If it is replaced again and again meanwhile.
    """
    if isinstance(folder, Path):
        yield folder
        return
    place = new_place(folder.name)
    try:
        for _ in range(_LOOKS):
            before = listed(folder, anew=True)
            if folder / last not in {file.path for file in before}:
                raise FileNotFoundError(f"{folder} is not there, or not whole ({last} is missing): materialize it.")
            copies = local_copies(before)
            if None not in copies and listed(folder, anew=True) == before:
                for file, copy in zip(before, copies, strict=True):
                    assert copy is not None
                    link = place.joinpath(*file.path.relative_to(folder).parts)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.hardlink_to(copy)  # stays when the cache lets its own name go
                break
        else:
            raise StorageError(f"{folder} is replaced while it is read: read it again when its writers are done.")
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def begin_folder(folder: Location) -> None:
    """Let an empty folder exist."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
    else:
        created(folder / KEEP, b"")


def has_begun(folder: Location) -> bool:
    """Whether `begin_folder` was called, or there is a folder of this machine."""
    return folder.is_dir() if isinstance(folder, Path) else (folder / KEEP).is_file()


def removed(place: Location, *, first: str | None = None) -> None:
    """Delete a file, or a folder with everything below; of an object store's folder the object `first` goes first."""
    if isinstance(place, Path):
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)
        return
    if first is not None:
        (place / first).unlink(missing_ok=True)
    below = [file.path for file in listed(place)]
    _delete(below)
    if not below:
        place.unlink(missing_ok=True)


def moved_folder(source: ObjectPath, target: ObjectPath, *, first: str) -> None:
    """Copy a folder and delete the original, whose object `first` goes before the others are copied.

    Who writes below the source and finds `first` still there afterwards, has written what is copied.
    """
    fs = file_system(source.scheme)
    with asking(source):
        fs.copy((source / first).key, (target / first).key)
    (source / first).unlink(missing_ok=True)
    rest = [file.path for file in listed(source)]
    for path in rest:
        with asking(path):
            fs.copy(path.key, target.joinpath(*path.relative_to(source).parts).key)
    _delete(rest)


def _delete(paths: list[ObjectPath]) -> None:
    if paths:
        with asking(paths[0]):
            file_system(paths[0].scheme).rm([path.key for path in paths])  # a thousand a request
