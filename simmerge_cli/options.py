"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CatalogFile = Annotated[
    Path,
    typer.Option(
        "--catalog", envvar="SIMMERGE_CATALOG", metavar="FILE", show_envvar=False, help="The catalog (YAML) to use."
    ),
]
DEFAULT_CATALOG = Path("demo/catalog.yaml")

DataFolder = Annotated[
    Path,
    typer.Option(
        "--data", envvar="SIMMERGE_DATA", metavar="DIR", show_envvar=False, help="The data root that holds results."
    ),
]
DEFAULT_DATA = Path("data")

DagsterHome = Annotated[
    Path,
    typer.Option(
        "--dagster-home", envvar="DAGSTER_HOME", metavar="DIR", show_envvar=False, help="Folder of Dagster's event log."
    ),
]
DEFAULT_DAGSTER_HOME = Path("dagster_home")

Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON on stdout.")]

Device = Annotated[str, typer.Option("--device", metavar="NAME", help="Where to compute: cpu, cuda, cuda:1, mps, …")]

AllowHub = Annotated[
    bool,
    typer.Option("--allow-hub", help="Download hub checkpoints at their pinned revision, and benchmark data."),
]
