"""The data root: Hive-style Parquet, one file per partition, written atomically."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from simmerge_core.errors import TableError
from simmerge_core.files import write_atomically
from simmerge_core.ids import validate_id
from simmerge_core.tables.schema import Table

_FILE = "part.parquet"
_MAGIC = b"PAR1"
_LEAST_BYTES = 12  # magic, length of the footer, magic


class DataRoot:
    """Where all results live (`SIMMERGE_DATA`, default ``data/``).

    A table's partition lies at ``<root>/<table>/<key>=<value>/…/part.parquet``; partition columns are only in the
    path. Other artefacts (probe caches, selectors, merged checkpoints) have folders laid out the same way.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def folder(self, name: str, **keys: str) -> Path:
        """Folder of an artefact's partition; keys become ``key=value`` path parts in the order given."""
        parts = [f"{key}={urllib.parse.quote(validate_id(key, value), safe='')}" for key, value in keys.items()]
        return self.root.joinpath(name, *parts)

    def path(self, table: Table, **keys: str) -> Path:
        """Path of the Parquet file that holds one partition."""
        if tuple(keys) != table.partition:
            raise TableError(f"Table {table.name} is partitioned by {table.partition}, not by {tuple(keys)}.")
        return self.folder(table.name, **keys) / _FILE

    def write(self, table: Table, frame: pl.DataFrame, **keys: str) -> Path:
        """Validate `frame` (without partition columns, or with equal ones) and put it in the place of the partition."""
        path = self.path(table, **keys)
        frame = frame.drop([c for c in table.partition if c in frame.columns and c not in table.schema])
        checked = table.validated(frame, where=str(path))
        with write_atomically(path) as temporary:
            checked.write_parquet(temporary, compression="zstd", statistics=True)
        return path

    def exists(self, table: Table, **keys: str) -> bool:
        """Whether the partition has been written."""
        return self.path(table, **keys).is_file()

    def read(self, table: Table, **keys: str) -> pl.DataFrame:
        """One partition, with its partition columns first."""
        path = self.path(table, **keys)
        if not path.is_file():
            raise TableError(f"Table {table.name} has no partition {keys} (expected {path}): materialize it first.")
        _refuse_truncated(table, path)
        columns = [pl.lit(value, dtype=pl.String).alias(key) for key, value in keys.items()]
        frame = pl.read_parquet(path, hive_partitioning=False)
        return frame.select(*columns, pl.all()) if columns else frame

    def partitions(self, table: Table) -> list[dict[str, str]]:
        """Keys of the partitions that exist, sorted."""
        pattern = "/".join(f"{key}=*" for key in table.partition)
        files = self.root.joinpath(table.name).glob(f"{pattern}/{_FILE}" if pattern else _FILE)
        found = []
        for file in files:
            parts = file.parent.parts[len(file.parent.parts) - len(table.partition) :] if table.partition else ()
            pairs = (part.split("=", 1) for part in parts)
            found.append({key: urllib.parse.unquote(value) for key, value in pairs})
        return sorted(found, key=lambda keys: tuple(keys.values()))

    def scan(self, table: Table, *, where: Sequence[dict[str, str]] | None = None) -> pl.LazyFrame:
        """All partitions (or those named by `where`) as one lazy frame with the partition columns first.

        An absent table is an empty frame with the right columns.

        Raises
        ------
        TableError
            Naming a file that is no whole Parquet file.
        """
        keys = self.partitions(table) if where is None else [k for k in where if self.exists(table, **k)]
        schema: dict[str, pl.DataType | type[pl.DataType]] = dict.fromkeys(table.partition, pl.String)
        schema.update(table.schema)
        if not keys:
            return pl.LazyFrame(schema=schema)
        for k in keys:
            _refuse_truncated(table, self.path(table, **k))
        frames = [
            pl.scan_parquet(self.path(table, **k), hive_partitioning=False).select(
                *(pl.lit(value, dtype=pl.String).alias(key) for key, value in k.items()), pl.all()
            )
            for k in keys
        ]
        return pl.concat(frames, how="vertical", parallel=False)


def _refuse_truncated(table: Table, path: Path) -> None:
    """Raise where a file does not end as Parquet does; our own writes are whole, copies and disks may not be."""
    with path.open("rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(0, size - len(_MAGIC)))
        if size < _LEAST_BYTES or handle.read() != _MAGIC:
            raise TableError(
                f"Table {table.name}: {path} is damaged (no whole Parquet file): delete it and materialize it again."
            )
