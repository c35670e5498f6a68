"""Where files of an object store lie on this machine: copies that were read, and what is about to be uploaded."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "SIMMERGE_CACHE"


def scratch_folder() -> Path:
    """The folder that SIMMERGE_CACHE names, or ``simmerge`` in the user's cache folder; made if it is not there."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get(VARIABLE) or Path(home) / "simmerge").absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
