"""Writes that a reader sees whole or not at all, and content hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simmerge_core.storage import Location, ObjectPath, created, local_copy, uploaded, uploaded_folder
from simmerge_core.writers import is_gone, writer

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_file(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


@contextlib.contextmanager
def write_atomically(path: Location) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed over `path`, on error removed.

    The temporary name starts with a dot, so that globs over a data root never see it. For an object it lies on this
    machine, and is uploaded.
    """
    if isinstance(path, ObjectPath):
        with uploaded(path) as temporary:
            yield temporary
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        yield temporary
        _sync_file(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep_abandoned(path: Path) -> None:
    """Remove what killed writers of `path` left beside it: a merge of large checkpoints leaves gigabytes.

    Names carry the writer's host and process id; those of other hosts and of living processes are left alone, and a
    moved-aside folder goes back if nothing stands in its place.
    """
    for left in path.parent.glob(f".{path.name}.*"):
        parts = left.name.rsplit(".", 3)
        if len(parts) != 4 or parts[3] not in {"tmp", "old"}:
            continue
        if is_gone(parts[1]):
            if parts[3] == "old" and not path.exists():
                left.rename(path)
            elif left.is_dir():
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def replaced_folder(path: Location, *, last: str | None = None, once: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path`, on error it is removed.

    An earlier folder at `path` is moved aside first and deleted only once the new one stands, so that a failure at
    any point leaves one complete folder. In an object store the object `last` says which folders are complete, and
    `once` that a complete one stays (`storage.uploaded_folder`).
    """
    if isinstance(path, ObjectPath):
        if last is None:
            raise ValueError(f"{path}: a folder in an object store needs a last object, which says that it is whole.")
        with uploaded_folder(path, last=last, once=once) as temporary:
            yield temporary
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_abandoned(path)
    token = f"{writer(os.getpid())}.{uuid.uuid4().hex}"
    temporary = path.parent / f".{path.name}.{token}.tmp"
    aside = path.parent / f".{path.name}.{token}.old"
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                _sync_file(file)
        _take_place(temporary, path, aside)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def _take_place(temporary: Path, path: Path, aside: Path) -> None:
    """Rename a folder into its place; of several writers at once each succeeds, and the last one's stays."""
    while True:
        with contextlib.suppress(FileNotFoundError):  # nothing is there, or another writer has just moved it aside
            path.rename(aside)
        try:
            temporary.rename(path)
        except OSError as error:
            if error.errno in _TAKEN:  # another writer's has just taken the place: that one is moved aside in turn
                shutil.rmtree(aside, ignore_errors=True)
                continue
            if aside.exists() and not path.exists():
                aside.rename(path)
            raise
        return


def write_json(path: Location, value: Any) -> None:
    """Write `value` as sorted, indented JSON, atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(_json_text(value), encoding="utf-8")


def write_json_once(path: Location, value: Any) -> bool:
    """As `write_json`, unless there is a file already: of several writers one succeeds, and only it gets True."""
    if isinstance(path, ObjectPath):
        return created(path, _json_text(value).encode("utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        temporary.write_text(_json_text(value), encoding="utf-8")
        _sync_file(temporary)
        try:
            os.link(temporary, path)  # fails where the name is taken; a rename would take its place
        except FileExistsError:
            return False
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"


def hash_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON form of `value`: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def hash_file(path: Location) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with local_copy(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
