"""An append-only log that many processes write at once: a serial history without locks, one file per event.

Event n is written to a temporary file, fsynced, and hard-linked to ``<n>.parquet``, which fails if the name exists;
then the folder is fsynced. A writer commits n only after it has read everything before n, so the log has no gaps, and
who loses n reads on and decides again.

Full blocks of `BLOCK` events are merged into ``<first>-<last>.parquet``, and only then their single files deleted. A
writer that stalled before its link may then link n again, under a name that has become free. Why no event is lost or
doubled by that: a segment's name follows from n alone, and a segment is never deleted. A single file of n is deleted
only after the segment of n exists. Hence, if there is no segment of n *after* a single file of n was read or linked,
no file of n was ever deleted before, so that just one link to n has ever succeeded and this file is it. If there is
one, the segment holds the truth and the single file says nothing. Readers, compacting writers and committing writers
all look for the segment afterwards: a reader then reads the segment instead, and a writer has committed only if its
own token stands there; otherwise it withdraws its file and tries n+1. Files below a segment that a killed writer left
are ignored, and removed with other litter by a later one.

Listing a folder while it changes may miss what comes and goes meanwhile, but nothing that stays. So a number that is
missing in a listing is looked for by name before it counts as missing.

In an object store event n is put under a condition that fails if the name exists, which says what the hard link says;
everything else is the same.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from simmerge_core.bandit.events import BANDIT_LOG, Event, events_of
from simmerge_core.errors import BanditError
from simmerge_core.files import write_atomically
from simmerge_core.storage import (
    Location,
    ObjectFile,
    ObjectPath,
    created,
    has_begun,
    listed,
    local_copies,
    local_copy,
    located,
)

BLOCK = 512
"""Events of a segment: part of the format, since a segment's name must follow from an event's number."""

_SUFFIX, _DIGITS = ".parquet", 12
_LITTER_SECONDS = 3600.0
_LOOKS = 100
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


class _LookAgain(Exception):
    """The folder changed while it was read."""


@dataclass(frozen=True)
class _Listing:
    segments: frozenset[int]  # by block
    singles: frozenset[int]  # by sequence number, also those that a segment covers
    temporaries: tuple[str, ...]
    objects: Mapping[str, ObjectFile]  # by name, in an object store

    @property
    def end(self) -> int:
        """One more than the greatest number."""
        return max(max(self.segments, default=-1) * BLOCK + BLOCK, max(self.singles, default=-1) + 1, 0)

    @property
    def open_singles(self) -> list[int]:
        return sorted(n for n in self.singles if n // BLOCK not in self.segments)


class EventLog:
    """The log of one bandit under a folder of its own; reading never writes.

    One object serves one thread; any number of objects, in any processes, may share the folder. What makes an event
    right after those before it is the caller's to know: it reads on and checks again whenever `commit` says no.
    """

    def __init__(self, folder: str | Location) -> None:
        self.folder = located(folder)
        self._singles = 0
        self._tidied = False

    def frame(self, start: int = 0) -> pl.DataFrame:
        """Events from number `start` on, in order, with the columns of `BANDIT_LOG`; lists the folder once.

        Raises
        ------
        BanditError
            Naming a file that is damaged, has other columns or numbers than its name says, or the event that is
            missing.
        """
        for look in range(_LOOKS):
            time.sleep(0.001 * look)
            listing = self._list()
            self._singles = len(listing.open_singles)
            if listing.end < start and not self._there(start - 1):
                raise self._missing(start - 1)
            if listing.end <= start:
                return pl.DataFrame(schema=dict(BANDIT_LOG.schema))
            blocks = range(start // BLOCK, (listing.end - 1) // BLOCK + 1)
            with contextlib.suppress(_LookAgain):
                return pl.concat([self._block(block, listing, start) for block in blocks])
        raise BanditError(f"The log {self.folder} changes faster than it can be read: try again with fewer writers.")

    def events(self, start: int = 0) -> list[Event]:
        """What `frame` reads, as events."""
        return events_of(self.frame(start), where=str(self.folder))

    def commit(self, event: Event) -> bool:
        """Put an event at its number, durably; the caller has read everything before it.

        Returns
        -------
        False if another writer was first; nothing has changed then.

        Raises
        ------
        BanditError
            If the folder is gone: the bandit was put aside meanwhile, and a log made anew would belong to none.
        """
        if not has_begun(self.folder):
            raise BanditError(
                f"The log {self.folder} is gone, its bandit was put aside or removed meanwhile: materialize this again."
            )
        writer = uuid.uuid4().hex
        data = replace(event, time=datetime.now(UTC), writer=writer).parquet()
        if not self._put(self._single(event.sequence), data, writer):
            return False
        if isinstance(self.folder, Path):
            sync_folder(self.folder)
        if self._segment(event.sequence // BLOCK).exists() and not self._is_ours(event.sequence, writer):
            self._single(event.sequence).unlink(missing_ok=True)
            return False
        self._singles += 1
        if self._singles > BLOCK or not self._tidied:
            with contextlib.suppress(OSError):  # the event is committed; the next writer tidies
                self.tidy()
        return True

    def tidy(self) -> None:
        """Merge full blocks into segments and remove litter; safe beside any readers and writers, killed at any point.

        Raises
        ------
        BanditError
            As `frame`; the damaged block stays as it is.
        """
        listing = self._list()
        for block in sorted({n // BLOCK for n in listing.open_singles if (n // BLOCK + 1) * BLOCK <= listing.end}):
            with contextlib.suppress(_LookAgain):  # another writer has merged it
                merged = self._block(block, listing, block * BLOCK)
                with write_atomically(self._segment(block)) as temporary:
                    merged.write_parquet(temporary, compression="zstd")
        merged_blocks = {block for block in {n // BLOCK for n in listing.singles} if self._segment(block).exists()}
        for n in listing.singles:
            if n // BLOCK in merged_blocks:
                self._single(n).unlink(missing_ok=True)
        for name in listing.temporaries:
            if isinstance(self.folder, Path) and is_litter(self.folder / name):
                (self.folder / name).unlink(missing_ok=True)
        self._singles = len(self._list().open_singles)
        self._tidied = True

    def _single(self, n: int) -> Location:
        return self.folder / f"{n:0{_DIGITS}d}{_SUFFIX}"

    def _segment(self, block: int) -> Location:
        first = block * BLOCK
        return self.folder / f"{first:0{_DIGITS}d}-{first + BLOCK - 1:0{_DIGITS}d}{_SUFFIX}"

    def _list(self) -> _Listing:
        segments, singles, temporaries = set(), set(), []
        objects: dict[str, ObjectFile] = {}
        if isinstance(self.folder, ObjectPath):
            # Names with a dot are no litter there: an upload that is not finished has no name.
            objects = {o.path.name: o for o in listed(self.folder) if not o.path.name.startswith(".")}
            names = list(objects)
        else:
            try:
                names = os.listdir(self.folder)
            except FileNotFoundError:
                names = []
        for name in names:
            stem = name.removesuffix(_SUFFIX)
            if name.startswith("."):
                temporaries.append(name)
            elif stem == name:
                continue
            elif len(stem) == _DIGITS and stem.isdecimal():
                singles.add(int(stem))
            elif stem[:_DIGITS].isdecimal() and name == self._segment(int(stem[:_DIGITS]) // BLOCK).name:
                segments.add(int(stem[:_DIGITS]) // BLOCK)
            else:
                raise BanditError(
                    f"File {self.folder / name} is named after no event and no block of {BLOCK}: move it out of the "
                    "log."
                )
        return _Listing(frozenset(segments), frozenset(singles), tuple(temporaries), objects)

    def _block(self, block: int, listing: _Listing, start: int) -> pl.DataFrame:
        """Events of one block that were listed, from `start` on."""
        first, last = block * BLOCK, min(block * BLOCK + BLOCK, listing.end) - 1
        if block in listing.segments:
            return self._read(self._segment(block), range(first, last + 1)).slice(max(0, start - first))
        numbers = range(max(first, start), last + 1)
        frame = self._at_once(numbers, listing) if len(numbers) > 1 else None
        if frame is None:  # one by one, to name what is wrong
            frame = pl.concat([self._read_single(n, listing) for n in numbers])
        if self._segment(block).exists():
            raise _LookAgain
        return frame

    def _at_once(self, numbers: range, listing: _Listing) -> pl.DataFrame | None:
        """Single files in one go, which is several times faster; None if anything is wrong."""
        with contextlib.suppress(*_UNREADABLE):
            files = self._files_of(numbers, listing)
            if len(files) < len(numbers):
                return None
            frame = pl.read_parquet(files, hive_partitioning=False, glob=False)
            if _has_columns(frame) and frame["sequence"].to_list() == list(numbers):
                return frame
        return None

    def _files_of(self, numbers: range, listing: _Listing) -> list[Path]:
        """Single files on this machine, without those that an object store does not have any more."""
        if isinstance(self.folder, Path):
            return [self.folder / self._single(n).name for n in numbers]
        names = [self._single(n).name for n in numbers]
        copies = local_copies(listing.objects[name] for name in names if name in listing.objects)
        return [copy for copy in copies if copy is not None]

    def _read_single(self, n: int, listing: _Listing) -> pl.DataFrame:
        try:
            if n not in listing.singles:
                raise FileNotFoundError
            return self._read(self._single(n), range(n, n + 1))
        except FileNotFoundError:
            if self._there(n):
                raise _LookAgain from None
            raise self._missing(n) from None
        except BanditError:
            # Without hard links, a file can be seen before it is finished, and below a segment it may never be.
            if self._segment(n // BLOCK).exists() or (n == listing.end - 1 and 0 <= _age(self._single(n)) < 1):
                raise _LookAgain from None
            raise

    def _read(self, path: Location, numbers: range) -> pl.DataFrame:
        try:
            frame = pl.read_parquet(local_copy(path), hive_partitioning=False, glob=False)
        except FileNotFoundError:
            raise
        except _UNREADABLE as error:
            raise BanditError(
                f"File {path} of the bandit's log is damaged ({error}): restore it from a copy; only the last one, "
                "whose writer was killed on a disk without hard links, may be deleted, and its call made again."
            ) from error
        if not _has_columns(frame):
            raise BanditError(
                f"File {path} is no part of a bandit's log (columns {', '.join(frame.columns)}): move it out of the "
                "log if it is another's, or restore it from a copy."
            )
        found = frame["sequence"].to_list()
        if found != list(numbers):
            wrong = next((n for n in found if found.count(n) > 1 or n not in numbers), "too few")
            raise BanditError(
                f"File {path} of the bandit's log must hold the events {numbers[0]} to {numbers[-1]} once each, in "
                f"order, but holds {wrong}: an event is repeated or missing; restore the file from a copy."
            )
        return frame

    def _there(self, n: int) -> bool:
        # In this order: the single file goes after the segment has come.
        return self._single(n).exists() or self._segment(n // BLOCK).exists()

    def _missing(self, n: int) -> BanditError:
        return BanditError(
            f"Event {n} is missing in the log {self.folder}, which has later ones or had it before: restore "
            f"{self._single(n).name} from a copy, since nothing after a gap can be relied on."
        )

    def _is_ours(self, n: int, writer: str) -> bool:
        block = n // BLOCK
        segment = self._read(self._segment(block), range(block * BLOCK, block * BLOCK + BLOCK))
        return bool(segment["writer"][n % BLOCK] == writer)

    def withdraw(self, event: Event) -> None:
        """Take back what was just committed to an object store's log whose bandit was put aside meanwhile."""
        single = self._single(event.sequence)
        with contextlib.suppress(FileNotFoundError, BanditError):
            found = self._read(single, range(event.sequence, event.sequence + 1))
            if found["round_id"][0] == event.round_id and found["kind"][0] == event.kind:
                single.unlink(missing_ok=True)

    def _put(self, target: Location, data: bytes, writer: str) -> bool:
        """Whether `target` did not exist and is now a file of `data`."""
        if isinstance(target, ObjectPath):
            # An answer that was lost makes the library ask again: then what is there is ours, writer and all.
            return created(target, data) or target.read_bytes() == data
        temporary = target.parent / f".{target.name}.{writer}.tmp"
        try:
            _write_new(temporary, data)
            os.link(temporary, target)
        except FileNotFoundError:
            return False  # taken for litter by another writer
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:
                _write_new(target, data)
            except FileExistsError:
                return False
        finally:
            temporary.unlink(missing_ok=True)
        return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _has_columns(frame: pl.DataFrame) -> bool:
    return list(frame.schema.items()) == list(BANDIT_LOG.schema.items())


def _age(path: Location) -> float:
    """Seconds since a file was written; 0 if it is gone. Objects are whole when they appear, so that none is young."""
    if isinstance(path, ObjectPath):
        return math.inf
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def is_litter(temporary: Path) -> bool:
    """Whether a temporary file or folder is so old that its writer was killed; one that was not just tries again."""
    return _age(temporary) > _LITTER_SECONDS


def _write_new(path: Path, data: bytes) -> None:
    with path.open("xb") as handle:
        try:
            handle.write(data)
            handle.flush()
        except OSError:
            path.unlink(missing_ok=True)  # half of an event is none
            raise
        os.fsync(handle.fileno())
