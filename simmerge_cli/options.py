"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simmerge_core.storage import Location, ObjectPath, located

CatalogFile = Annotated[
    Path,
    typer.Option(
        "--catalog", envvar="SIMMERGE_CATALOG", metavar="FILE", show_envvar=False, help="The catalog (YAML) to use."
    ),
]
DEFAULT_CATALOG = Path("demo/catalog.yaml")

if TYPE_CHECKING:
    DataPlace = Location
else:
    DataPlace = ObjectPath  # typer takes no unions, and would turn a Path's value into one; the parser gives either


def data_root(place: str | Path) -> Location:
    """A folder as it is, or the place that a URL names; raises StorageError if that cannot be read."""
    from simmerge_core.storage import check_data_root

    found = located(place)
    check_data_root(found, writing=False)
    return found


DataFolder = Annotated[
    DataPlace,
    typer.Option(
        "--data",
        envvar="SIMMERGE_DATA",
        metavar="DIR",
        show_envvar=False,
        parser=data_root,
        help="The data root that holds results: a folder, or s3://bucket/prefix.",
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
