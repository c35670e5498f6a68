"""Whether a data root in an object store can be used, said before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simmerge_core.errors import StorageError
from simmerge_core.storage.filesystem import asking, file_system
from simmerge_core.storage.location import Location
from simmerge_core.storage.object_path import ObjectPath
from simmerge_core.storage.writing import require_exclusive

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def check_data_root(root: Location, *, writing: bool) -> None:
    """Raise StorageError if a data root in an object store cannot be listed, or, if `writing`, written exclusively.

    A HEAD, a LIST and a HEAD of the bucket at most, for writing once two PUTs and a DELETE; nothing for a folder of
    this machine.
    """
    if not isinstance(root, ObjectPath):
        return
    place = f"{root.scheme}://{root.bucket}"
    fs = file_system(root.scheme)
    try:
        with asking(f"Data root {root}"):
            if not fs.exists(root.key) and not _may_be(fs, root.bucket):
                raise FileNotFoundError
            if writing:
                require_exclusive(root)
    except FileNotFoundError as error:
        raise StorageError(f"Data root {root} cannot be used: there is no bucket {place}; make it first.") from error
    except PermissionError as error:
        needed = "list, get, put and delete objects" if writing else "list and get objects"
        raise StorageError(
            f"Data root {root} cannot be used: access to bucket {place} was denied; let the credentials {needed} there."
        ) from error


def _may_be(fs: AbstractFileSystem, bucket: str) -> bool:
    """Whether there is a bucket; one that may be asked below a prefix alone is taken for one."""
    try:
        return bool(fs.info(bucket))
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
