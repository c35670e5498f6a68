"""Materialize the whole graph in this process, into the instance that the UI shows; interrupted, it goes on later."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from simmerge_core.catalog import load_catalog
from simmerge_core.devices import check_device
from simmerge_core.errors import SimMergeError, TableError
from simmerge_core.labels import kept_workers
from simmerge_core.storage import Location, check_data_root, located
from simmerge_pipeline.driver import AssetSummary, Budget, Driver
from simmerge_pipeline.event_log import persistent_instance
from simmerge_pipeline.progress import Progress
from simmerge_pipeline.resources import PROJECT_ROOT, CatalogResource, ComputeResource, DataRootResource


@dataclass
class Summary:
    """What `materialize_all` did, asset by asset, in dependency order."""

    assets: list[AssetSummary]
    seconds: float
    changing: list[str] = field(default_factory=list)
    """Checkpoints whose folders may still be copied into: they are left for another time."""

    @property
    def failed(self) -> dict[str, str]:
        """Sentence by ``asset[partition]`` of everything that could not be computed."""
        return {f"{a.name}[{key}]": text for a in self.assets for key, text in a.failed.items()}

    @property
    def ok(self) -> bool:
        """Whether everything that the catalog asks for is there."""
        return not self.failed


def materialize_all(
    *,
    catalog: str | Path,
    data_root: str | Location,
    dagster_home: str | Path | None = None,
    workers: int = 0,
    device: str = "cpu",
    assets: Sequence[str] | None = None,
    budget: Budget | None = None,
    progress: Progress | None = None,
    instance: dg.DagsterInstance | None = None,
) -> Summary:
    """Register what the catalog declares and materialize everything that is missing or out of date.

    Parameters
    ----------
    catalog
        Catalog file.
    data_root
        Folder of all results, or their place in an object store.
    dagster_home
        Folder of the persistent instance; ``dagster_home`` of the project if None.
    workers
        Processes that score merges; 0 takes one per core. Results do not depend on it.
    device
        torch device.
    assets
        Names of the assets to bring up to date; all if None. What they read is not added.
    budget
        Bounds the time of steps that want the accelerator; what it does not reach is left for another time.
    progress
        Called with a message and the fraction done, from 0 to 1.
    instance
        Takes the place of the one at `dagster_home`.

    Returns
    -------
    Summary
        A partition that fails does not stop the others; what needs it is reported as failed, too.

    Raises
    ------
    CatalogError, TableError, StorageError, SimMergeError
        Before any work, if the catalog or the data root is not usable, or an asset does not exist.
    """
    begun = time.perf_counter()
    declared = load_catalog(catalog)
    check_device(device)
    place = located(data_root).absolute()
    _refuse_unusable(place)
    data = DataRootResource(path=str(place))
    resources = {
        "catalog": CatalogResource(path=str(Path(catalog).absolute())),
        "data": data,
        "compute": ComputeResource(workers=workers, device=device),
    }
    from simmerge_pipeline.definitions import defs

    graph = dg.Definitions(assets=defs().assets, resources=resources)
    job = graph.resolve_implicit_global_asset_job_def()
    with _instance(instance, dagster_home) as persistent, kept_workers():
        driver = Driver(job, persistent, declared, data.root, budget)
        driver.refuse_unknown(assets or ())
        driver.close_interrupted_runs()
        driver.register_partitions()
        done = driver.materialize_each(assets, progress or (lambda message, fraction: None))
    return Summary(done, time.perf_counter() - begun, driver.changing)


def _refuse_unusable(data: Location) -> None:
    """Raise if nothing can be written below the data root, before every partition fails by itself."""
    if not isinstance(data, Path):
        check_data_root(data, writing=True)
        return
    place = data
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise TableError(f"Data root {data} cannot be used: {place} is not a folder; choose another place.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise TableError(f"Data root {data} cannot be used: {place} cannot be written; correct its permissions.")


@contextmanager
def _instance(given: dg.DagsterInstance | None, home: str | Path | None) -> Iterator[dg.DagsterInstance]:
    if given is not None:
        yield given
        return
    folder = Path(home).absolute() if home is not None else PROJECT_ROOT / "dagster_home"
    with persistent_instance(folder) as instance:
        yield instance


def main(arguments: Sequence[str] | None = None) -> int:
    """Materialize everything, with a progress bar; exit code 1 if something could not be computed."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table
    from rich.text import Text

    parser = argparse.ArgumentParser(prog="python -m simmerge_pipeline.materialize", description=main.__doc__)
    parser.add_argument("--catalog", default=os.environ.get("SIMMERGE_CATALOG") or PROJECT_ROOT / "demo/catalog.yaml")
    parser.add_argument("--data", default=os.environ.get("SIMMERGE_DATA") or PROJECT_ROOT / "data")
    parser.add_argument("--dagster-home", default=os.environ.get("DAGSTER_HOME") or PROJECT_ROOT / "dagster_home")
    parser.add_argument("--workers", type=int, default=0, help="processes that score merges; 0 takes one per core")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    if given.workers < 0:
        parser.error(f"--workers {given.workers} is less than 0: give a number of processes, or 0 for one per core")
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    try:
        with Progress(*columns, console=console) as bar:
            line = bar.add_task("starting", total=1.0)
            summary = materialize_all(
                catalog=given.catalog,
                data_root=given.data,
                dagster_home=given.dagster_home,
                workers=given.workers,
                device=given.device,
                progress=lambda message, fraction: bar.update(line, description=message, completed=fraction),
            )
    except SimMergeError as error:
        console.print(Text(str(error), style="red"))
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        console.print(Text(f"{place}{error.strerror or error}.", style="red"))
        return 2
    table = Table("asset", "partitions", "computed", "up to date", "failed", "runs", "seconds")
    for a in summary.assets:
        counts = (a.partitions, a.computed, a.current, len(a.failed), a.runs)
        table.add_row(a.name, *map(str, counts), f"{a.seconds:.1f}")
    console.print(table)
    for id in summary.changing:
        console.print(Text(f"Checkpoint {id!r} is still changing and was left for another time."))
    for place, text in summary.failed.items():
        console.print(Text(place, style="red"), Text(text))
    return 0 if summary.ok else 1


if __name__ == "__main__":
    sys.exit(main())
