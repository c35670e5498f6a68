"""Everything ever evaluated, by content: a folder of Parquet segments that many processes may write at once.

An entry is the score frame of one model on one task under its evaluation key. A segment is one Parquet file with
many entries, written whole and renamed into place under a name of its own, so that writers never meet. Ten thousand
labels of a tenth of a second are thus a few files with one fsync each, and a process that is killed loses what it
had not flushed: a few seconds of work. Two processes that evaluate the same key at worst store it twice, with equal
content; the first that is read counts.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from simmerge_core.errors import EvaluationError
from simmerge_core.files import write_atomically
from simmerge_core.storage import Location, listed, local_copies, located

SCORE_SCHEMA: dict[str, type[pl.DataType]] = {
    "benchmark": pl.String,
    "metric": pl.String,
    "item_set": pl.String,
    "seed": pl.Int64,
    "utility": pl.Float64,
    "stderr": pl.Float64,
    "n": pl.Int64,
}
"""Columns of a score frame: one row per benchmark, metric, item set and seed."""

_SCHEMA: dict[str, type[pl.DataType]] = {"evaluation_key": pl.String, **SCORE_SCHEMA}
_MANY = 64  # segments, beyond which they are merged into one


class EvaluationStore:
    """Content-addressed store of score frames under one folder (``<data root>/evaluations``).

    ``put`` is durable when it returns; inside ``with store.batch():`` entries are collected and written together
    every few seconds and at the end. Reading sees what other processes have flushed.
    """

    def __init__(self, folder: str | Location) -> None:
        self.folder = located(folder)
        self._entries: dict[str, pl.DataFrame] = {}
        self._seen: set[str] = set()
        self._buffer: dict[str, pl.DataFrame] = {}
        self._batch_seconds: float | None = None
        self._oldest = 0.0

    def __len__(self) -> int:
        self._refresh()
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def get(self, key: str) -> pl.DataFrame | None:
        """The score frame under `key` (columns of `SCORE_SCHEMA`), or None.

        Raises
        ------
        EvaluationError
            Naming a segment that is damaged or is not a segment.
        """
        return self._find(key)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that are not stored, in order, each once; looks at the folder once."""
        self._refresh()
        return [key for key in dict.fromkeys(keys) if key not in self._entries]

    def frame(self, keys: Iterable[str]) -> pl.DataFrame:
        """The entries under `keys` in one frame, ``evaluation_key`` first; keys that are not stored are left out."""
        self._refresh()
        found = {key: self._entries[key] for key in dict.fromkeys(keys) if key in self._entries}
        if not found:
            return pl.DataFrame(schema=_SCHEMA)
        return _together(found)

    def put(self, key: str, frame: pl.DataFrame) -> None:
        """Store `frame` under `key`; a key that is stored already keeps its content.

        Raises
        ------
        EvaluationError
            If the frame has not the columns of `SCORE_SCHEMA`, is empty, or holds a utility that is not finite.
        """
        if dict(frame.schema) != SCORE_SCHEMA or not frame.height or not frame["utility"].is_finite().all():
            raise EvaluationError(
                f"Evaluation {key} cannot be stored: its frame needs the columns {', '.join(SCORE_SCHEMA)}, "
                "at least one row, and finite utilities."
            )
        if key in self._entries:
            return
        self._entries[key] = frame
        if not self._buffer:
            self._oldest = time.monotonic()
        self._buffer[key] = frame
        if self._batch_seconds is None or time.monotonic() - self._oldest >= self._batch_seconds:
            self.flush()

    @contextlib.contextmanager
    def batch(self, *, seconds: float = 3.0) -> Iterator[EvaluationStore]:
        """Collect what is put inside, writing a segment every `seconds` and at the end, also on an error."""
        before, self._batch_seconds = self._batch_seconds, seconds
        try:
            yield self
        finally:
            self._batch_seconds = before
            self.flush()
            if len(self._segments()) > _MANY:
                self.compact()

    def flush(self) -> None:
        """Write what has been put and not yet written."""
        if self._buffer:
            self._write(self._buffer)
            self._buffer = {}

    def compact(self) -> None:
        """Merge the segments into one; safe beside other readers and writers, which look again when a file is gone."""
        self.flush()
        self._refresh()
        old = [path for path in self._segments() if path.name in self._seen]
        if len(old) > 1:
            self._write(self._entries)
            for path in old:
                path.unlink(missing_ok=True)

    def _write(self, entries: dict[str, pl.DataFrame]) -> None:
        frame = _together(entries)
        path = self.folder / f"segment-{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.parquet"
        with write_atomically(path) as temporary:
            frame.write_parquet(temporary, compression="zstd")
        self._seen.add(path.name)

    def _segments(self) -> list[Location]:
        return sorted(p for p in self.folder.glob("*.parquet") if not p.name.startswith("."))

    def _unread(self) -> list[tuple[Location, Path | None]]:
        """Segments that were not read yet, and where on this machine; None for one that has just gone."""
        if isinstance(self.folder, Path):
            files = sorted(p for p in self.folder.glob("*.parquet") if not p.name.startswith("."))
            return [(path, path) for path in files if path.name not in self._seen]
        objects = [o for o in listed(self.folder) if o.path.suffix == ".parquet" and o.path.name not in self._seen]
        return [(o.path, copy) for o, copy in zip(objects, local_copies(objects), strict=True)]

    def _find(self, key: str) -> pl.DataFrame | None:
        if key not in self._entries:
            self._refresh()
        return self._entries.get(key)

    def _refresh(self) -> None:
        for path, file in self._unread():
            try:
                if file is None:
                    raise FileNotFoundError(path)
                frame = pl.read_parquet(file, hive_partitioning=False)
            except FileNotFoundError:
                # Another process merged it into a newer segment after we listed the folder.
                self._refresh()
                return
            except (pl.exceptions.PolarsError, OSError) as error:
                raise EvaluationError(
                    f"Evaluation segment {path} is damaged ({error}): delete it, and what it held is evaluated again."
                ) from error
            if dict(frame.schema) != _SCHEMA:
                raise EvaluationError(
                    f"File {path} is not an evaluation segment (columns {', '.join(frame.columns)}): "
                    "move it out of the evaluation store."
                )
            for (key,), entry in frame.group_by("evaluation_key", maintain_order=True):
                self._entries.setdefault(str(key), entry.drop("evaluation_key"))
            self._seen.add(path.name)


def _together(entries: dict[str, pl.DataFrame]) -> pl.DataFrame:
    keys = [key for key, frame in entries.items() for _ in range(frame.height)]
    return pl.DataFrame({"evaluation_key": pl.Series(keys, dtype=pl.String)}).hstack(pl.concat(entries.values()))
