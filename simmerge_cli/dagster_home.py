"""The folder of Dagster's event log, ready to be used, and where the project's own Dagster files lie."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

_CONFIGURATION = "dagster.yaml"


def project_folder() -> Path | None:
    """The checkout that holds the pipeline, found without importing it; None where there is none."""
    found = importlib.util.find_spec("simmerge_pipeline")
    return Path(found.origin).resolve().parents[1] if found is not None and found.origin is not None else None


def prepared(home: Path) -> Path:
    """`home` as an absolute folder that exists, with the project's configuration unless it has one of its own."""
    home = home.expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    project = project_folder()
    usual = None if project is None else project / "dagster_home" / _CONFIGURATION
    if usual is not None and usual.is_file() and not (home / _CONFIGURATION).exists():
        shutil.copyfile(usual, home / _CONFIGURATION)
    return home
