"""Where the data root lies: folders of this machine, or a prefix of an object store (``s3://bucket/prefix``).

fsspec is imported when an object store is first asked, never for a folder.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.storage.copies import existing_copy, local_copies, local_copy
    from simmerge_core.storage.folders import (
        begin_folder,
        has_begun,
        is_complete,
        local_folder,
        moved_folder,
        removed,
        uploaded_folder,
    )
    from simmerge_core.storage.listings import File, ObjectFile, files_below, kept_listings, listed, size_of, version_of
    from simmerge_core.storage.location import Location, located
    from simmerge_core.storage.object_path import ObjectPath
    from simmerge_core.storage.reaching import check_data_root
    from simmerge_core.storage.scratch import scratch_folder
    from simmerge_core.storage.writing import created, uploaded

_HOME = {
    "File": "listings",
    "Location": "location",
    "ObjectFile": "listings",
    "ObjectPath": "object_path",
    "begin_folder": "folders",
    "check_data_root": "reaching",
    "created": "writing",
    "existing_copy": "copies",
    "files_below": "listings",
    "has_begun": "folders",
    "is_complete": "folders",
    "kept_listings": "listings",
    "listed": "listings",
    "local_copies": "copies",
    "local_copy": "copies",
    "local_folder": "folders",
    "located": "location",
    "moved_folder": "folders",
    "removed": "folders",
    "scratch_folder": "scratch",
    "size_of": "listings",
    "uploaded": "writing",
    "uploaded_folder": "folders",
    "version_of": "listings",
}

__all__ = [
    "File",
    "Location",
    "ObjectFile",
    "ObjectPath",
    "begin_folder",
    "check_data_root",
    "created",
    "existing_copy",
    "files_below",
    "has_begun",
    "is_complete",
    "kept_listings",
    "listed",
    "local_copies",
    "local_copy",
    "local_folder",
    "located",
    "moved_folder",
    "removed",
    "scratch_folder",
    "size_of",
    "uploaded",
    "uploaded_folder",
    "version_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
