"""The data root: Hive-style Parquet, one file per partition, written atomically."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from simmerge_core.errors import TableError
from simmerge_core.files import write_atomically
from simmerge_core.ids import validate_id
from simmerge_core.storage import (
    Location,
    ObjectFile,
    ObjectPath,
    existing_copy,
    files_below,
    listed,
    local_copies,
    local_copy,
    located,
)
from simmerge_core.tables.schema import Table

if TYPE_CHECKING:
    from simmerge_core.storage.listings import File, ObjectFile

_FILE = "part.parquet"
_PATH = "__path__"
_LOOKS = 20
_MAGIC = b"PAR1"
_LEAST_BYTES = 12  # magic, length of the footer, magic


class DataRoot:
    """Where all results live (`SIMMERGE_DATA`, default ``data/``): a folder, or a prefix of an object store.

    A table's partition lies at ``<root>/<table>/<key>=<value>/…/part.parquet``; partition columns are only in the
    path. Other artefacts (probe caches, selectors, merged checkpoints) have folders laid out the same way.
    """

    def __init__(self, root: str | os.PathLike[str] | ObjectPath) -> None:
        self.root: Location = located(root)

    def folder(self, name: str, **keys: str) -> Location:
        """Folder of an artefact's partition; keys become ``key=value`` path parts in the order given."""
        parts = [f"{key}={urllib.parse.quote(validate_id(key, value), safe='')}" for key, value in keys.items()]
        return self.root.joinpath(name, *parts)

    def path(self, table: Table, **keys: str) -> Location:
        """Path of the Parquet file that holds one partition."""
        if tuple(keys) != table.partition:
            raise TableError(f"Table {table.name} is partitioned by {table.partition}, not by {tuple(keys)}.")
        return self.folder(table.name, **keys) / _FILE

    def write(self, table: Table, frame: pl.DataFrame, **keys: str) -> Location:
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
        copy = existing_copy(path)
        if copy is None:
            raise TableError(f"Table {table.name} has no partition {keys} (expected {path}): materialize it first.")
        _refuse_truncated(table, copy, path)
        columns = [pl.lit(value, dtype=pl.String).alias(key) for key, value in keys.items()]
        frame = pl.read_parquet(copy, hive_partitioning=False)
        return frame.select(*columns, pl.all()) if columns else frame

    def written(self, table: Table) -> list[File]:
        """The file of every partition, with its size and version: one listing."""
        return files_below(self.root / table.name, pattern=_FILE)

    def partitions(self, table: Table) -> list[dict[str, str]]:
        """Keys of the partitions that exist, sorted."""
        pattern = "/".join(f"{key}=*" for key in table.partition)
        files = self.root.joinpath(table.name).glob(f"{pattern}/{_FILE}" if pattern else _FILE)
        return sorted((_keys_of(table, file) for file in files), key=lambda keys: tuple(keys.values()))

    def scan(self, table: Table, *, where: Sequence[dict[str, str]] | None = None) -> pl.LazyFrame:
        """All partitions (or those named by `where`) as one lazy frame with the partition columns first.

        An absent table is an empty frame with the right columns.

        Raises
        ------
        TableError
            Naming a file that is no whole Parquet file.
        """
        found = self._files(table, where)
        schema: dict[str, pl.DataType | type[pl.DataType]] = dict.fromkeys(table.partition, pl.String)
        schema.update(table.schema)
        if not found:
            return pl.LazyFrame(schema=schema)
        for k, file in found:
            _refuse_truncated(table, file, self.path(table, **k))
        files = [str(file) for _, file in found]
        if not table.partition:
            return pl.scan_parquet(files, hive_partitioning=False, glob=False)
        # One scan of all files, told apart by their paths: a scan each takes time that grows with their square.
        keys = {key: [k[key] for k, _ in found] for key in table.partition}
        places = pl.LazyFrame({_PATH: files, **keys}, schema_overrides=dict.fromkeys((_PATH, *keys), pl.String))
        rows = pl.scan_parquet(files, hive_partitioning=False, glob=False, include_file_paths=_PATH)
        joined = rows.join(places, on=_PATH, how="left", maintain_order="left")
        return joined.select(*table.partition, pl.exclude(_PATH, *table.partition))

    def _files(self, table: Table, where: Sequence[dict[str, str]] | None) -> list[tuple[dict[str, str], Path]]:
        """Keys and files of the partitions that there are; from an object store, copies of them."""
        if isinstance(self.root, ObjectPath):
            return self._copies(self.root / table.name, table, where)
        keys = self.partitions(table) if where is None else [k for k in where if self.exists(table, **k)]
        return [(k, local_copy(self.path(table, **k))) for k in keys]

    def _copies(
        self, place: ObjectPath, table: Table, where: Sequence[dict[str, str]] | None
    ) -> list[tuple[dict[str, str], Path]]:
        """One listing, and a GET for each partition whose content was not fetched before."""
        depth = len(place.parts) + len(table.partition) + 1
        if where is not None and len(where) == 1:
            place = place.joinpath(*self.path(table, **where[0]).parent.parts[len(place.parts) :])
        for look in range(_LOOKS):
            objects = [o for o in listed(place, anew=look > 0) if o.path.name == _FILE and len(o.path.parts) == depth]
            if where is None:
                chosen = sorted(((_keys_of(table, o.path), o) for o in objects), key=lambda e: tuple(e[0].values()))
            else:
                there: dict[Location, ObjectFile] = {o.path: o for o in objects}
                chosen = [(k, there[path]) for k in where if (path := self.path(table, **k)) in there]
            copies = local_copies(o for _, o in chosen)
            found = [(k, copy) for (k, _), copy in zip(chosen, copies, strict=True) if copy is not None]
            if len(found) == len(chosen):
                return found
        raise TableError(f"Table {table.name} under {self.root} changes faster than it can be read: try again later.")


def _keys_of(table: Table, file: Location) -> dict[str, str]:
    """The partition that a file of a table holds, by its path."""
    parts = file.parent.parts[len(file.parent.parts) - len(table.partition) :] if table.partition else ()
    pairs = (part.split("=", 1) for part in parts)
    return {key: urllib.parse.unquote(value) for key, value in pairs}


def _refuse_truncated(table: Table, file: Path, path: Location) -> None:
    """Raise where a file does not end as Parquet does; our own writes are whole, copies and disks may not be."""
    with file.open("rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(0, size - len(_MAGIC)))
        if size < _LEAST_BYTES or handle.read() != _MAGIC:
            raise TableError(
                f"Table {table.name}: {path} is damaged (no whole Parquet file): delete it and materialize it again."
            )
