"""Files of this machine that hold what an object holds: each content is fetched once, whoever reads it."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simmerge_core.errors import StorageError
from simmerge_core.storage.filesystem import LARGE, asking, file_system
from simmerge_core.storage.listings import ObjectFile, version_of
from simmerge_core.storage.location import Location
from simmerge_core.storage.scratch import scratch_folder

_TOGETHER = 16  # objects that are fetched at once
_LOOKS = 20
_CHUNK = 1 << 20


def local_copy(path: Location) -> Path:
    """The path itself if it is one of this machine, else that of a copy of the object as it is now.

    One HEAD, and one GET if this content was not fetched before. The copy is read-only and must not be renamed.

    Raises
    ------
    FileNotFoundError
        If there is no object.
    StorageError
        If the store cannot be reached, or the object is replaced faster than it can be read.
    """
    if isinstance(path, Path):
        return path
    for look in range(_LOOKS):
        file = version_of(path, anew=look > 0)
        copy = _copy(file)
        if copy is not None:
            return copy
    raise StorageError(f"{path} is replaced faster than it can be read: read it again when its writers are done.")


def existing_copy(path: Location) -> Path | None:
    """As `local_copy`, or None if there is no file and no object."""
    try:
        copy = local_copy(path)
    except FileNotFoundError:
        return None
    return copy if copy.is_file() else None


def local_copies(files: Iterable[ObjectFile]) -> list[Path | None]:
    """Copies of objects as a listing says they are; None for each that was replaced or deleted since. In order."""
    files = list(files)
    if not files:
        return []
    found: list[Path | None] = [_there(file) for file in files]
    absent = [number for number, copy in enumerate(found) if copy is None]
    if absent:
        small = [number for number in absent if files[number].bytes < LARGE]
        with ThreadPoolExecutor(_TOGETHER, thread_name_prefix="fetch") as pool:
            for number, copy in zip(small, pool.map(_copy, [files[number] for number in small]), strict=True):
                found[number] = copy
        for number in set(absent) - set(small):
            found[number] = _copy(files[number])
    return found


def _copy(file: ObjectFile) -> Path | None:
    there = _there(file)
    if there is not None:
        return there
    target = _place(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        with asking(file.path):
            file_system(file.path.scheme).get_file(file.path.key, str(temporary))
        if not _holds(temporary, file):
            return None
        temporary.chmod(0o400)
        temporary.replace(target)
    except FileNotFoundError:
        return None
    finally:
        temporary.unlink(missing_ok=True)
    from simmerge_core.storage.eviction import make_room

    make_room(target.stat().st_size)
    return target


def _there(file: ObjectFile) -> Path | None:
    """The copy, marked as used now, if there is one."""
    place = _place(file)
    try:
        os.utime(place, (time.time(), place.stat().st_mtime))
    except FileNotFoundError:
        return None
    return place


def _holds(temporary: Path, file: ObjectFile) -> bool:
    """Whether what was fetched is the version that was asked for: large objects are fetched in several requests."""
    if temporary.stat().st_size != file.bytes:
        return False
    if len(file.version) == 32:  # of an object that was put at once and not encrypted by a key of its own, the MD5
        digest = hashlib.md5(usedforsecurity=False)
        with temporary.open("rb") as handle:
            while chunk := handle.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() == file.version:
            return True
    # The same before and after, so that all of it is of one version.
    return version_of(file.path, anew=True).version == file.version


def _place(file: ObjectFile) -> Path:
    """By address and content: the name ends as the object's does, since readers look at suffixes."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    what = "\n".join((endpoint, str(file.path), file.version, str(file.bytes)))
    name = hashlib.sha256(what.encode()).hexdigest()
    return copies_folder() / name[:2] / f"{name}{file.path.suffix}"


def copies_folder() -> Path:
    """Where copies lie."""
    return scratch_folder() / "objects"
