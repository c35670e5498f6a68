"""Fingerprints are those of the manifests that are there now, however often they are asked for."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from simmerge_core.catalog import Catalog, load_catalog
from simmerge_core.tables import CHECKPOINTS, DataRoot
from simmerge_pipeline.contents import fingerprints, kept_manifests


def write(root: DataRoot, checkpoint: str, fingerprint: str) -> None:
    values = {
        name: fingerprint if name == "fingerprint" else "x" if kind == pl.String else kind == pl.Boolean or 1
        for name, kind in CHECKPOINTS.schema.items()
    }
    path = root.path(CHECKPOINTS, checkpoint=checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame([values], schema=CHECKPOINTS.schema, strict=False).write_parquet(path)


def catalog_of(folder: Path) -> Catalog:
    (folder / "p.jsonl").write_text('{"prompt": "1+1="}\n')
    (folder / "catalog.yaml").write_text(
        "version: 1\nbase: {id: base, path: base}\ncheckpoints: [{id: math-01, path: math-01, domain: math}]\n"
        "tasks: [{id: math, probes: p.jsonl, benchmarks: [{name: items, metrics: [acc]}]}]\n"
    )
    return load_catalog(folder / "catalog.yaml")


def test_what_is_written_is_seen_at_once(tmp_path: Path) -> None:
    catalog, root = catalog_of(tmp_path), DataRoot(tmp_path / "data")
    assert fingerprints(root, catalog) == {}
    write(root, "base", "a" * 64)
    assert fingerprints(root, catalog) == {"base": "a" * 64}
    write(root, "base", "b" * 64)
    write(root, "math-01", "c" * 64)
    write(root, "not-declared", "d" * 64)
    assert fingerprints(root, catalog) == {"base": "b" * 64, "math-01": "c" * 64}


def test_manifests_that_are_kept_are_those_of_one_moment(tmp_path: Path) -> None:
    catalog, root = catalog_of(tmp_path), DataRoot(tmp_path / "data")
    write(root, "base", "a" * 64)
    with kept_manifests():
        before = fingerprints(root, catalog)
        write(root, "base", "b" * 64)
        assert fingerprints(root, catalog) == before == {"base": "a" * 64}
    assert fingerprints(root, catalog) == {"base": "b" * 64}
