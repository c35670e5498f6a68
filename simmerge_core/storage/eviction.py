"""Copies of objects that were not used for long make room for new ones."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from simmerge_core.errors import StorageError

VARIABLE = "SIMMERGE_CACHE_GB"
_DEFAULT_GB = 50.0
_SPARED_SECONDS = 3600.0  # a path that was given out may not have been opened yet
_GB = 1e9
_LOOK_EVERY = 0.05  # of the limit, fetched by this process between two looks at the folder

_lock = threading.Lock()
_fetched: dict[str, float] = {}


def limit_bytes() -> float:
    """SIMMERGE_CACHE_GB in bytes, by default 50 GB; raises StorageError if it is no positive number."""
    text = os.environ.get(VARIABLE) or str(_DEFAULT_GB)
    try:
        limit = float(text) * _GB
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise StorageError(f"{VARIABLE} is {text!r}: give the size of the cache in GB, more than 0.")
    return limit


def make_room(fetched: int) -> None:
    """Note that so many bytes were fetched; now and then delete what was used least recently, down to the limit.

    What was used within the last hour stays, whatever the limit.
    """
    from simmerge_core.storage.copies import copies_folder

    folder, limit = copies_folder(), limit_bytes()
    with _lock:
        total = _fetched.get(str(folder), limit) + fetched  # the first fetch of a process looks
        look = total >= _LOOK_EVERY * limit
        _fetched[str(folder)] = 0.0 if look else total
    if look:
        delete_unused(folder, limit, now=time.time())


def delete_unused(folder: Path, limit: float, *, now: float) -> int:
    """Delete copies until they take at most `limit` bytes, least recently used first; bytes that became free."""
    found = []
    for path in folder.glob("*/*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found.append((stat.st_atime, stat.st_size, path))
    over, freed = sum(size for _, size, _ in found) - limit, 0
    for used, size, path in sorted(found):
        if freed >= over or now - used < _SPARED_SECONDS:
            break
        path.unlink(missing_ok=True)
        freed += size
    return freed
