"""Where files of an object store lie on this machine: copies that were read, and what is about to be uploaded."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from simmerge_core.errors import StorageError
from simmerge_core.writers import is_gone, writer

VARIABLE = "SIMMERGE_CACHE"
_IN_THE_MAKING = "making"


def scratch_folder() -> Path:
    """The folder that SIMMERGE_CACHE names, or ``simmerge`` in the user's cache folder; made if it is not there.

    Raises
    ------
    StorageError
        If it cannot be made.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get(VARIABLE) or Path(home) / "simmerge").absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"Cache folder {folder} cannot be made ({error.strerror}): let {VARIABLE} name one that can be written."
        ) from error
    return folder


def new_place(name: str) -> Path:
    """A path for a file or folder that ends with `name`; what killed processes of this host left is removed first."""
    folder = scratch_folder() / _IN_THE_MAKING
    folder.mkdir(exist_ok=True)
    for left in folder.iterdir():
        if is_gone(left.name.partition(".")[0]):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return folder / f"{writer(os.getpid())}.{uuid.uuid4().hex}.{name}"
