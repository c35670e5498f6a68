"""Resources: where the catalog is, where results go, and what may be used to compute them."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
from pydantic import Field

from simmerge_core.catalog import Catalog, load_catalog
from simmerge_core.catalog.last_good import load_or_last_good
from simmerge_core.errors import SimMergeError
from simmerge_core.storage import located
from simmerge_core.tables import DataRoot

# Dagster starts run workers with other working directories, so relative paths need a fixed place to start from.
PROJECT_ROOT = Path(__file__).resolve().parent.parent


def _absolute(path: str) -> Path:
    return (PROJECT_ROOT / Path(path).expanduser()).absolute()


class CatalogResource(dg.ConfigurableResource):
    """The catalog file; read anew by every step and sensor tick, so that edits count at once."""

    path: str = Field(
        default="demo/catalog.yaml",
        description="catalog file; a relative path starts at the project root; SIMMERGE_CATALOG sets it",
    )

    @classmethod
    def from_environment(cls) -> CatalogResource:
        """The catalog that SIMMERGE_CATALOG names, or the demo's."""
        return cls(path=os.environ.get("SIMMERGE_CATALOG") or "demo/catalog.yaml")

    @property
    def exists(self) -> bool:
        """Whether there is a catalog file."""
        return _absolute(self.path).is_file()

    def load(self) -> Catalog:
        """The catalog; where it does not parse, the last one that did, with a warning. Raises CatalogError without any.

        The sensor raises what is wrong; steps that are under way go on with what was declared.
        """
        catalog, wrong = load_or_last_good(_absolute(self.path))
        if wrong is not None:
            dg.get_dagster_logger("simmerge").warning(f"The last good catalog stays in force: {wrong}")
        return catalog

    def load_as_it_is(self) -> Catalog:
        """Read and validate the file itself; raises CatalogError."""
        return load_catalog(_absolute(self.path))


class DataRootResource(dg.ConfigurableResource):
    """The data root that holds every table and artefact."""

    path: str = Field(
        default="data",
        description=(
            "folder of all results, or s3://bucket/prefix; a relative path starts at the project root; "
            "SIMMERGE_DATA sets it"
        ),
    )

    @classmethod
    def from_environment(cls) -> DataRootResource:
        """The data root that SIMMERGE_DATA names, or ``data``."""
        return cls(path=os.environ.get("SIMMERGE_DATA") or "data")

    @property
    def root(self) -> DataRoot:
        """The data root."""
        place = located(self.path)
        return DataRoot(_absolute(self.path) if isinstance(place, Path) else place)


class ComputeResource(dg.ConfigurableResource):
    """What steps compute with; nothing here changes a result."""

    device: str = Field(default="cpu", description="torch device for probes and evaluations, e.g. cuda:0")
    workers: int = Field(default=0, ge=0, description="processes that score merges; 0 takes one per core")
    batch_size: int = Field(default=16, ge=1, description="probe prompts per forward pass")

    @classmethod
    def from_environment(cls) -> ComputeResource:
        """Device and workers from SIMMERGE_DEVICE and SIMMERGE_WORKERS; raises SimMergeError if these are no number."""
        workers = os.environ.get("SIMMERGE_WORKERS") or "0"
        if not (workers.isascii() and workers.isdigit()):
            raise SimMergeError(f"SIMMERGE_WORKERS is {workers!r}, which is no number of processes: set 0 or more.")
        return cls(device=os.environ.get("SIMMERGE_DEVICE") or "cpu", workers=int(workers))

    @property
    def processes(self) -> int:
        """Number of processes that score merges."""
        if self.workers:
            return self.workers
        # A container may be allowed fewer cores than the machine has.
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
