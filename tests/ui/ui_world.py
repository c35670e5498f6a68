"""The tiny demo catalog with everything on it, and then more in the catalog than has been computed."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from simmerge_cli.dagster_home import prepared
from simmerge_core.catalog import Catalog, load_catalog
from simmerge_core.tables import DataRoot
from simmerge_pipeline.materialize import materialize_all

NEW, LATER, BROKEN = "code-09", "math-09", "math-08"
"""A checkpoint that has only a manifest; one that has nothing yet; one whose weights end too early."""

TASKS = ("code", "math")


class Grown:
    """A catalog of which everything was computed before it grew by three checkpoints.

    Whoever opens the UI on it finds partitions that are missing and results with all their plots.
    """

    def __init__(self, finished: Path, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(finished.parent, folder / "catalog")
        self.catalog_path, self.data = folder / "catalog" / finished.name, folder / "data"
        self.home = prepared(folder / "dagster")

    @property
    def catalog(self) -> Catalog:
        return load_catalog(self.catalog_path)

    @property
    def root(self) -> DataRoot:
        return DataRoot(self.data)

    def build(self) -> None:
        """Compute everything, and then let the catalog grow."""
        self._materialize()
        self._add_checkpoint(NEW, like="code-01")
        self._materialize("checkpoints")
        self._add_checkpoint(LATER, like="math-01")
        self._add_checkpoint(BROKEN, like="math-01")
        weights = self.catalog_path.parent / "checkpoints" / BROKEN / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])

    def _materialize(self, *assets: str) -> None:
        summary = materialize_all(
            catalog=self.catalog_path, data_root=self.data, dagster_home=self.home, workers=1, assets=assets or None
        )
        assert summary.ok, summary.failed

    def _declare(self, key: str, entry: dict[str, object]) -> None:
        content = yaml.safe_load(self.catalog_path.read_text())
        content[key] = [*content[key], entry]
        self.catalog_path.write_text(yaml.safe_dump(content, sort_keys=False))

    def _add_checkpoint(self, id: str, *, like: str) -> None:
        source, target = (self.catalog_path.parent / "checkpoints" / name for name in (like, id))
        shutil.copytree(source, target)
        noise = torch.Generator().manual_seed(len(id))
        weights = load_file(target / "model.safetensors")
        moved = {name: w + 0.01 * torch.randn(w.shape, generator=noise) for name, w in weights.items()}
        save_file(moved, target / "model.safetensors", metadata={"format": "pt"})
        self._declare("checkpoints", {"id": id, "path": f"checkpoints/{id}", "domain": like.partition("-")[0]})
