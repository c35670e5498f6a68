"""A catalog with its data root and Dagster instance, which a test may change."""

from __future__ import annotations

import base64
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import torch
import yaml
from safetensors.torch import load_file, save_file

from simmerge_core.catalog import Catalog, load_catalog
from simmerge_core.tables import DataRoot
from simmerge_pipeline.materialize import Summary, materialize_all
from simmerge_pipeline.progress import Progress

SIGNALS = ("checkpoints", "probe_activations", "weight_gram", "functional_similarity", "pairwise_features")


@dataclass
class World:
    """A catalog, its data root and an instance of its own."""

    catalog_path: Path
    data: Path | str
    instance: dg.DagsterInstance

    @property
    def catalog(self) -> Catalog:
        return load_catalog(self.catalog_path)

    @property
    def root(self) -> DataRoot:
        return DataRoot(self.data)

    def materialize(self, *assets: str, progress: Progress | None = None) -> Summary:
        return materialize_all(
            catalog=self.catalog_path,
            data_root=self.data,
            instance=self.instance,
            workers=1,
            assets=assets or None,
            progress=progress,
        )

    def declare(self, **changes: object) -> None:
        """Replace top-level entries of the catalog file."""
        content = yaml.safe_load(self.catalog_path.read_text())
        self.catalog_path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))

    def entries(self) -> list[dict[str, str]]:
        return list(yaml.safe_load(self.catalog_path.read_text())["checkpoints"])

    def add_checkpoint(self, id: str, *, like: str) -> dict[str, str]:
        """A checkpoint near an existing one, with weights of its own."""
        source, target = (
            self.catalog_path.parent / f"checkpoints/{like}",
            self.catalog_path.parent / f"checkpoints/{id}",
        )
        shutil.copytree(source, target)
        weights = load_file(target / "model.safetensors")
        noise = torch.Generator().manual_seed(len(id))
        moved = {name: w + 0.01 * torch.randn(w.shape, generator=noise) for name, w in weights.items()}
        save_file(moved, target / "model.safetensors", metadata={"format": "pt"})
        domain = next(entry["domain"] for entry in self.entries() if entry["id"] == like)
        return {"id": id, "path": f"checkpoints/{id}", "domain": domain}


def newest_event(world: World, asset: str) -> dg.AssetMaterialization:
    """The event that an asset's page shows."""
    (record,) = world.instance.fetch_materializations(dg.AssetKey(asset), limit=1).records
    assert record.asset_materialization is not None
    return record.asset_materialization


def width_of(picture: str) -> int:
    """Pixels across of a PNG inside a Markdown image, by its header."""
    png = base64.b64decode(picture.partition("base64,")[2].rstrip(")"))
    assert png.startswith(b"\x89PNG")
    return int(struct.unpack(">I", png[16:20])[0])
