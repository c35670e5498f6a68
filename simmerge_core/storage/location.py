"""A place of either kind from what a user writes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from simmerge_core.errors import StorageError
from simmerge_core.storage.object_path import ObjectPath

Location = Path | ObjectPath
"""A path of this machine, or a place in an object store."""

# Of one letter it is a drive.
_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def located(place: str | os.PathLike[str] | ObjectPath) -> Location:
    """A place in an object store for a URL, else a path as it is.

    Raises
    ------
    StorageError
        If a URL names no object store that can hold a data root, or has one slash.
    """
    if isinstance(place, ObjectPath):
        return place
    if isinstance(place, str) and "://" in place:
        return ObjectPath.parse(place)
    if isinstance(place, str) and (url := _ONE_SLASH.match(place)):
        raise StorageError(
            f"{place!r} is neither a folder nor a URL: write {url[1]}://{place[url.end() :].lstrip('/')}, or "
            f"./{place} for a folder of that name."
        )
    return Path(place)
