"""A place of either kind from what a user writes."""

from __future__ import annotations

import os
from pathlib import Path

from simmerge_core.storage.object_path import ObjectPath

Location = Path | ObjectPath
"""A path of this machine, or a place in an object store."""


def located(place: str | os.PathLike[str] | ObjectPath) -> Location:
    """A place in an object store for a URL, else a path as it is.

    Raises
    ------
    StorageError
        If a URL names no object store that can hold a data root.
    """
    if isinstance(place, ObjectPath):
        return place
    if isinstance(place, str) and "://" in place:
        return ObjectPath.parse(place)
    return Path(place)
