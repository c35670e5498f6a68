"""``simmerge ui``: Dagster's web interface on exactly this data."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from simmerge_cli.dagster_home import prepared, project_folder
from simmerge_cli.options import (
    DEFAULT_CATALOG,
    DEFAULT_DAGSTER_HOME,
    DEFAULT_DATA,
    CatalogFile,
    DagsterHome,
    DataFolder,
    Json,
)
from simmerge_cli.output import note, print_json
from simmerge_core.errors import SimMergeError

EPILOG = "\b\nExample:\n  simmerge ui\n  simmerge ui --port 3001 --print"

_ADVICE = "ignore:Function `dev_command` is superseded:FutureWarning"
_HOST = "127.0.0.1"  # the interface runs code for whoever reaches it, so it is bound to this machine


def run(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on this machine.")] = 3000,
    only_print: Annotated[bool, typer.Option("--print", help="Print the command instead of starting it.")] = False,
    catalog: CatalogFile = DEFAULT_CATALOG,
    data: DataFolder = DEFAULT_DATA,
    dagster_home: DagsterHome = DEFAULT_DAGSTER_HOME,
    json: Json = False,
) -> None:
    """Open the Dagster UI on the results.

    The asset graph with its partitions, checks and plots, on this machine only.
    """
    dagster = _program()
    command = [str(dagster), "dev", *_definitions(), "-h", _HOST, "-p", str(port)]
    environment = {
        "SIMMERGE_CATALOG": str(catalog.expanduser().absolute()),
        "SIMMERGE_DATA": str(data.expanduser().absolute()),
        "DAGSTER_HOME": str(dagster_home.expanduser().absolute()),
    }
    address = f"http://{_HOST}:{port}"
    if json:
        print_json({"command": command, "environment": environment, "url": address})
        return
    if only_print:
        typer.echo(" ".join([*(f"{key}={value}" for key, value in environment.items()), *command]))
        return
    prepared(dagster_home)
    note(f"The Dagster UI opens at {address}; Ctrl-C ends it.")
    # A shell starts what it puts into the background with SIGINT ignored, and Dagster would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Replacing this process hands Dagster the terminal and its signals.
    os.execve(dagster, command, {**os.environ, **environment, "PYTHONWARNINGS": _quiet()})  # noqa: S606


def _quiet() -> str:
    """PYTHONWARNINGS without the advice to install another program, `dg`, which needs what `dagster` has not."""
    return ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), _ADVICE]))


def _definitions() -> list[str]:
    """How Dagster finds the assets: by the checkout's workspace file, else by the module."""
    project = project_folder()
    if project is not None and (project / "workspace.yaml").is_file():
        return ["-w", str(project / "workspace.yaml")]
    return ["-m", "simmerge_pipeline.definitions"]


def _program() -> Path:
    beside = Path(sys.executable).with_name("dagster")
    found = str(beside) if beside.is_file() else shutil.which("dagster")
    if found is None:
        raise SimMergeError("The program `dagster` is not there: pip install dagster dagster-webserver.")
    return Path(found)
