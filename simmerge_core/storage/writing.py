"""Objects appear whole: a file of this machine is uploaded by one request, or by parts that one request completes."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from simmerge_core.errors import StorageError
from simmerge_core.storage.filesystem import asking, file_system, is_conflict
from simmerge_core.storage.object_path import ObjectPath
from simmerge_core.storage.scratch import new_place

_CONFLICTS = 20
_exclusive: set[tuple[str, str]] = set()  # scheme and bucket of stores that were seen to keep to it


@contextlib.contextmanager
def uploaded(path: ObjectPath) -> Iterator[Path]:
    """Yield a path of this machine; what was written there takes the object's place when the block ends well."""
    temporary = new_place(path.name)
    try:
        yield temporary
        put(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def put(file: Path, path: ObjectPath) -> None:
    """Upload a file: readers see the object that was there, or this one. A failed upload by parts is withdrawn."""
    with asking(path):
        file_system(path.scheme).put_file(str(file), path.key)


def created(path: ObjectPath, data: bytes) -> bool:
    """Put an object where there is none; of several writers one succeeds, and only it gets True.

    Where an answer was lost and the request made again, the one that succeeded gets False: who must know compares
    what is there with what it wrote.

    Raises
    ------
    StorageError
        If the store does not refuse to replace an object; asked once in a process.
    """
    require_exclusive(path.parent)
    return _created(path, data)


def require_exclusive(folder: ObjectPath) -> None:
    """Raise StorageError if the store lets a second writer replace what it should only create.

    Two PUTs and a DELETE, once for each bucket in a process.
    """
    if (folder.scheme, folder.bucket) in _exclusive:
        return
    trial = folder / f".exclusive-{uuid.uuid4().hex}.tmp"
    try:
        first = _created(trial, b"first")
        second = _created(trial, b"second")
    finally:
        with contextlib.suppress(OSError):
            trial.unlink(missing_ok=True)
    if not first or second:
        raise StorageError(
            f"The store of {folder.scheme}://{folder.bucket} does not keep to exclusive creation (If-None-Match: *), "
            "without which two writers could replace each other's events: use one that does, or a shared file system."
        )
    _exclusive.add((folder.scheme, folder.bucket))


def _created(path: ObjectPath, data: bytes) -> bool:
    for attempt in range(_CONFLICTS):
        time.sleep(0.01 * attempt)
        try:
            with asking(path):
                file_system(path.scheme).pipe_file(path.key, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if not is_conflict(error):
                raise
        else:
            return True
    raise StorageError(f"{path} could not be created, the store says again and again that others try: try again later.")
