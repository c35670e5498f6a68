"""Where the data root lies: folders of this machine, or a prefix of an object store (``s3://bucket/prefix``).

Importing this loads nothing beyond the standard library; fsspec is imported when an object store is first asked.
"""

from simmerge_core.storage.folders import (
    begin_folder,
    has_begun,
    is_complete,
    local_folder,
    moved_folder,
    removed,
    uploaded_folder,
)
from simmerge_core.storage.listings import File, ObjectFile, files_below, kept_listings, listed, size_of
from simmerge_core.storage.local_copies import existing_copy, local_copies, local_copy
from simmerge_core.storage.location import Location, located
from simmerge_core.storage.object_path import ObjectPath
from simmerge_core.storage.reaching import check_data_root
from simmerge_core.storage.scratch import scratch_folder
from simmerge_core.storage.writing import created, uploaded

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
]
