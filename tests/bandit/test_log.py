"""The append-only log: put-if-absent, merged blocks, every interleaving of writers, and what reading refuses."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simmerge_core.bandit import log as log_module
from simmerge_core.bandit.events import BANDIT_LOG, Event, events_of
from simmerge_core.bandit.log import EventLog
from simmerge_core.errors import BanditError


def event(n: int, task: str = "t") -> Event:
    return Event(sequence=n, kind="add_task", task=f"{task}{n}", state_key="k")


def filled(folder: Path, count: int) -> EventLog:
    folder.mkdir(exist_ok=True)
    log = EventLog(folder)
    for n in range(log.frame().height, count):
        assert log.commit(event(n))
    return log


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def single(folder: Path, n: int) -> Path:
    return folder / f"{n:012d}.parquet"


@pytest.fixture(scope="module", autouse=True)
def _unsynced() -> Iterator[None]:
    """No test but the one that counts them needs to wait for disks."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "BLOCK", 4)


# --- what is written is what is read


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=9))
def test_every_bit_of_a_context_survives(values: list[float]) -> None:
    chosen = Event(
        sequence=0,
        kind="choose",
        round_id="r",
        request="",
        step=0,
        context_hash="h",
        source="",
        z=tuple(values),
        tasks=("math",),
        task_weights=(values[0],),
        arm="a",
        propensity=0.5,
        arms=("a", "b"),
        probabilities=(0.5, 0.5),
        draw_seed="0",
        writer="w",
        time=None,
    )
    frame = pl.read_parquet(chosen.parquet()).with_columns(time=pl.lit(None, BANDIT_LOG.schema["time"]))
    (read,) = events_of(frame, where="memory")
    assert read == chosen
    assert read.z is not None
    assert struct.pack(f"{len(values)}d", *read.z) == struct.pack(f"{len(values)}d", *values)
    assert np.array_equal(read.context.z, values)


def test_a_number_is_put_once(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir(exist_ok=True)
    log, other = EventLog(tmp_path / "log"), EventLog(tmp_path / "log")
    assert log.commit(event(0))
    before = single(log.folder, 0).read_bytes()
    assert not other.commit(event(0, "another"))
    assert single(log.folder, 0).read_bytes() == before
    assert names(log.folder) == ["000000000000.parquet"]
    assert other.events() == [event(0)]
    assert other.commit(event(1))
    assert log.events(1) == [event(1)]
    assert log.events(2) == []


def test_an_event_is_on_the_disk_before_its_name_and_its_name_before_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, done = os.link, []

    def noted_link(source: Path, target: Path) -> None:
        done.append("name")
        link(source, target)

    def noted_sync(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")

    log = filled(tmp_path, 1)
    monkeypatch.setattr(os, "link", noted_link)
    monkeypatch.setattr(os, "fsync", noted_sync)
    assert log.commit(event(1))
    assert done == ["file", "name", "folder"]


def test_a_log_that_is_not_there_is_empty_and_reading_makes_none(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    assert log.frame().schema == pl.Schema(BANDIT_LOG.schema)
    assert log.frame().height == 0
    assert not log.folder.exists()


def test_written_files_satisfy_the_table(tmp_path: Path) -> None:
    log = filled(tmp_path, 3)
    assert BANDIT_LOG.validated(log.frame(), where="test").equals(log.frame())
    assert all(column.description for column in BANDIT_LOG.columns)


# --- disks without hard links


def test_without_hard_links_a_number_is_put_once_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    log = EventLog(tmp_path)
    assert log.commit(event(0))
    assert not EventLog(tmp_path).commit(event(0, "another"))
    assert log.events() == [event(0)]
    assert names(tmp_path) == ["000000000000.parquet"]


def test_a_full_disk_is_no_missing_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="disk full"):
        EventLog(tmp_path).commit(event(0))
    assert names(tmp_path) == []


def test_a_last_file_that_is_being_written_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path, 3)
    whole = single(tmp_path, 2).read_bytes()
    single(tmp_path, 2).write_bytes(whole[:100])
    monkeypatch.setattr(time, "sleep", lambda s: single(tmp_path, 2).write_bytes(whole) if s > 0.002 else None)
    assert log.events() == [event(n) for n in range(3)]


# --- litter


def test_temporary_files_are_ignored_and_removed_once_they_are_old(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    young, old = tmp_path / ".000000000002.parquet.a.tmp", tmp_path / ".000000000002.parquet.b.tmp"
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (1.0, 1.0))
    log = EventLog(tmp_path)
    assert len(log.events()) == 2
    assert log.commit(event(2))
    assert young.exists()
    assert not old.exists()


def test_a_writer_whose_temporary_file_was_taken_for_litter_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, link = filled(tmp_path, 1), os.link
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", lambda source, target: (os.unlink(source), link(source, target)))
        assert not log.commit(event(1))
    assert log.commit(event(1))


def test_files_of_others_are_left_alone_unless_they_look_like_events(tmp_path: Path) -> None:
    log = filled(tmp_path, 1)
    (tmp_path / "notes.txt").write_text("mine")
    assert len(log.events()) == 1
    for name in ("000000000000 (copy).parquet", "000000000000-000000000099.parquet", "part.parquet"):
        shutil.copy(single(tmp_path, 0), tmp_path / name)
        with pytest.raises(BanditError, match="named after no event"):
            log.events()
        (tmp_path / name).unlink()


# --- merged blocks


@pytest.mark.usefixtures("small_blocks")
def test_full_blocks_are_merged_and_read_the_same(tmp_path: Path) -> None:
    log = filled(tmp_path / "log", 4)
    log.tidy()
    assert names(log.folder) == ["000000000000-000000000003.parquet"]
    filled(log.folder, 14)
    segments = [n for n in names(log.folder) if "-" in n]
    assert segments == [f"{first:012d}-{first + 3:012d}.parquet" for first in (0, 4, 8)]
    assert [n for n in names(log.folder) if "-" not in n] == ["000000000012.parquet", "000000000013.parquet"]
    for start in range(15):
        assert EventLog(log.folder).events(start) == [event(n) for n in range(start, 14)]


@pytest.mark.usefixtures("small_blocks")
def test_single_files_beside_their_segment_are_read_once_and_removed(tmp_path: Path) -> None:
    filled(tmp_path / "log", 4)
    shutil.copytree(tmp_path / "log", tmp_path / "kept")
    (tmp_path / "log").mkdir(exist_ok=True)
    log = EventLog(tmp_path / "log")
    log.tidy()
    shutil.copytree(tmp_path / "kept", log.folder, dirs_exist_ok=True)  # killed before any was deleted
    assert log.events() == [event(n) for n in range(4)]
    assert EventLog(log.folder).commit(event(4))  # its first commit looks for litter
    assert names(log.folder) == ["000000000000-000000000003.parquet", "000000000004.parquet"]


@pytest.mark.usefixtures("small_blocks")
def test_a_writer_that_slept_through_a_compaction_does_not_take_a_used_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, link = filled(tmp_path, 2), os.link

    def late_link(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        filled(tmp_path, 5)
        EventLog(tmp_path).tidy()
        assert not target.exists()  # the name is free again
        link(source, target)

    monkeypatch.setattr(os, "link", late_link)
    assert not log.commit(event(2, "late"))
    assert names(tmp_path) == ["000000000000-000000000003.parquet", "000000000004.parquet"]
    assert log.events() == [event(n) for n in range(5)]
    assert log.commit(event(5, "late"))
    assert EventLog(tmp_path).events()[-1] == event(5, "late")


@pytest.mark.usefixtures("small_blocks")
def test_a_late_writer_that_is_killed_after_its_link_changes_nothing(tmp_path: Path) -> None:
    log = filled(tmp_path, 4)
    log.tidy()
    single(tmp_path, 2).write_bytes(event(2, "late").parquet())
    assert EventLog(tmp_path).events() == [event(n) for n in range(4)]
    filled(tmp_path, 5)
    assert not single(tmp_path, 2).exists()
    assert EventLog(tmp_path).events() == [event(n) for n in range(5)]


@pytest.mark.usefixtures("small_blocks")
def test_an_event_that_is_merged_before_its_writer_wakes_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, link = filled(tmp_path, 2), os.link

    def link_and_sleep(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        link(source, target)
        filled(tmp_path, 5)
        EventLog(tmp_path).tidy()

    monkeypatch.setattr(os, "link", link_and_sleep)
    assert log.commit(event(2))
    assert log.events() == [event(n) for n in range(5)]


@pytest.mark.usefixtures("small_blocks")
def test_a_reader_does_not_believe_a_late_file_that_it_listed_as_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 4)
    reader, listed = EventLog(tmp_path), EventLog._list

    def list_and_sleep(self: EventLog) -> Any:
        found = listed(self)
        if self is reader:
            monkeypatch.setattr(EventLog, "_list", listed)
            EventLog(tmp_path).tidy()
            for n in range(4):
                single(tmp_path, n).write_bytes(event(n, "late").parquet())
        return found

    monkeypatch.setattr(EventLog, "_list", list_and_sleep)
    assert reader.events() == [event(n) for n in range(4)]


@pytest.mark.usefixtures("small_blocks")
def test_two_processes_may_merge_the_same_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, write = filled(tmp_path, 4), log_module.write_atomically

    @contextlib.contextmanager
    def slow_write(path: Path) -> Iterator[Path]:
        monkeypatch.setattr(log_module, "write_atomically", write)
        EventLog(tmp_path).tidy()
        filled(tmp_path, 6)
        with write(path) as temporary:
            yield temporary

    monkeypatch.setattr(log_module, "write_atomically", slow_write)
    log.tidy()
    assert EventLog(tmp_path).events() == [event(n) for n in range(6)]


# --- interleavings: threads that take turns at every call that touches the folder


class Turns:
    """Lets one of several threads go on at a time, from one file operation to the next, in an order that is given."""

    def __init__(self, order: Iterator[int]) -> None:
        self.order = order
        self.gates: dict[int, threading.Semaphore] = {}
        self.stopped = threading.Semaphore(0)
        self.live: set[int] = set()
        self.faults: list[BaseException] = []

    def take(self) -> None:
        gate = self.gates.get(threading.get_ident())
        if gate is not None:
            self.stopped.release()
            gate.acquire()

    def run(self, jobs: list[Callable[[], None]]) -> None:
        def begin(job: Callable[[], None]) -> None:
            self.gates[threading.get_ident()] = threading.Semaphore(0)
            self.take()
            try:
                job()
            except BaseException as fault:
                self.faults.append(fault)
            finally:
                self.live.discard(threading.get_ident())
                del self.gates[threading.get_ident()]
                self.stopped.release()

        threads = [threading.Thread(target=begin, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
            self.live.add(thread.ident or 0)
        for _ in threads:
            self.stopped.acquire()
        everyone = [thread.ident or 0 for thread in threads]
        while self.live:
            able = [ident for ident in everyone if ident in self.live]
            self.gates[able[next(self.order) % len(able)]].release()
            self.stopped.acquire()
        for thread in threads:
            thread.join()
        if self.faults:
            raise self.faults[0]


@contextlib.contextmanager
def taking_turns(turns: Turns) -> Iterator[None]:
    """Every operation of the log on its folder waits for a turn, and a listing may miss what changes meanwhile."""

    def waiting(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            turns.take()
            return operation(*arguments, **options)

        return run

    def listing(folder: Path) -> list[str]:
        before = set(listdir(folder))
        turns.take()
        after = set(listdir(folder))
        return [n for n in before | after if (n in before and n in after) or next(turns.order) % 2]

    listdir = os.listdir
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(log_module, "BLOCK", 2)
        patched.setattr(os, "listdir", listing)
        patched.setattr(os, "link", waiting(os.link))
        for name in ("exists", "unlink", "replace"):
            patched.setattr(Path, name, waiting(getattr(Path, name)))
        patched.setattr(pl, "read_parquet", waiting(pl.read_parquet))
        yield


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(2, 3), st.sampled_from(["fair", "stalls"]))
def test_whatever_the_interleaving_every_event_is_there_once(data: st.DataObject, writers: int, mode: str) -> None:
    drawn = data.draw(st.lists(st.integers(0, 5), min_size=60, max_size=300))
    if mode == "stalls":  # a writer sleeps while others do a lot
        drawn = [value for value in drawn for _ in range(7)]
    views: dict[str, list[Event]] = {}

    def work(name: str) -> None:
        log, seen, done = EventLog(folder), views.setdefault(name, []), 0
        while done < 4:
            seen += log.events(len(seen))
            mine = Event(sequence=len(seen), kind="add_task", task=f"{name}{done}", state_key="k")
            if log.commit(mine):
                seen.append(mine)
                done += 1

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        turns = Turns(itertools.chain(drawn, itertools.cycle(range(6))))
        with taking_turns(turns):
            turns.run([lambda n=n: work(n) for n in "abc"[:writers]])  # type: ignore[misc]
            history = EventLog(folder).events()
        for name, seen in views.items():
            assert seen == history[: len(seen)]
            assert [e.task for e in history if (e.task or "")[0] == name] == [f"{name}{i}" for i in range(4)]
        assert len(history) == 4 * writers


# --- what reading refuses


def test_a_gap_is_refused_by_number(tmp_path: Path) -> None:
    log = filled(tmp_path, 5)
    single(tmp_path, 2).unlink()
    with pytest.raises(BanditError, match=r"Event 2 is missing .*000000000002\.parquet"):
        EventLog(tmp_path).events()
    single(tmp_path, 4).unlink()
    with pytest.raises(BanditError, match="Event 4 is missing"):
        log.events(5)  # it had read that one


@pytest.mark.usefixtures("small_blocks")
def test_a_lost_segment_is_a_gap(tmp_path: Path) -> None:
    filled(tmp_path, 9).tidy()
    (tmp_path / "000000000000-000000000003.parquet").unlink()
    with pytest.raises(BanditError, match="Event 0 is missing"):
        EventLog(tmp_path).events()


def test_a_number_that_a_listing_missed_is_looked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, listdir = filled(tmp_path, 5), os.listdir
    answers = iter([[n for n in listdir(tmp_path) if not n.startswith("000000000002")]])
    monkeypatch.setattr(os, "listdir", lambda folder: next(answers, None) or listdir(folder))
    assert len(log.events()) == 5


@pytest.mark.usefixtures("small_blocks")
def test_a_number_that_is_merged_while_it_is_looked_for_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, listdir, exists = filled(tmp_path, 4), os.listdir, Path.exists
    answers = iter([[n for n in listdir(tmp_path) if not n.startswith("000000000002")]])

    def exists_and_sleep(self: Path) -> bool:
        found = exists(self)
        monkeypatch.setattr(Path, "exists", exists)
        EventLog(tmp_path).tidy()
        return found

    monkeypatch.setattr(os, "listdir", lambda folder: next(answers, None) or listdir(folder))
    monkeypatch.setattr(Path, "exists", exists_and_sleep)
    assert log.events() == [event(n) for n in range(4)]


def test_an_event_under_another_number_is_refused(tmp_path: Path) -> None:
    log = filled(tmp_path, 4)
    shutil.copy(single(tmp_path, 1), single(tmp_path, 3))
    os.utime(single(tmp_path, 3), (1.0, 1.0))
    with pytest.raises(BanditError, match=r"000000000003\.parquet .*events 3 to 3 once each.*holds 1: .*repeated"):
        log.events()


@pytest.mark.usefixtures("small_blocks")
def test_a_repeated_event_in_a_segment_is_refused(tmp_path: Path) -> None:
    log = filled(tmp_path, 4)
    log.tidy()
    path = tmp_path / "000000000000-000000000003.parquet"
    frame = pl.read_parquet(path)
    frame[[0, 1, 1, 3]].write_parquet(path)
    with pytest.raises(BanditError, match=r"000000000000-000000000003\.parquet .*holds 1: "):
        log.events()
    frame[:3].write_parquet(path)
    with pytest.raises(BanditError, match="too few"):
        log.events()


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "header"])
@pytest.mark.parametrize("n", [1, 3])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str, n: int) -> None:
    log = filled(tmp_path, 4)
    path = single(tmp_path, n)
    whole = path.read_bytes()
    made = {"empty": b"", "truncated": whole[:-20], "garbage": b"x" * 50, "header": whole[:-8] + b"\xff" * 8}
    path.write_bytes(made[damage])
    os.utime(path, (1.0, 1.0))
    with pytest.raises(BanditError, match=rf"{path.name} of the bandit's log is damaged .* restore it from a copy"):
        log.events()


def test_a_file_with_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    log = filled(tmp_path, 3)
    frame = pl.read_parquet(single(tmp_path, 1))
    for other in (frame.drop("reward"), frame.with_columns(more=1), frame.cast({"step": pl.Int32})):
        other.write_parquet(single(tmp_path, 1))
        with pytest.raises(BanditError, match=r"000000000001\.parquet is no part of a bandit's log"):
            log.events()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "dance"}, "Event 1 of .* unknown kind 'dance'"),
        ({"task": None}, r"Event 1 of .* \(add_task\) has no task"),
    ],
)
def test_an_event_that_says_nothing_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    log = filled(tmp_path, 3)
    frame = pl.read_parquet(single(tmp_path, 1))
    columns = [pl.lit(value, BANDIT_LOG.schema[name]).alias(name) for name, value in change.items()]
    frame.with_columns(columns).write_parquet(single(tmp_path, 1))
    with pytest.raises(BanditError, match=message):
        log.events()


def test_a_log_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    """Its bandit was put aside: a log without a warm state would bring the next one to a stop."""
    (tmp_path / "log").mkdir(exist_ok=True)
    log = EventLog(tmp_path / "log")
    assert log.commit(event(0))
    log.folder.rename(tmp_path / "aside")
    with pytest.raises(BanditError, match="was put aside or removed meanwhile"):
        log.commit(event(1))
    assert not log.folder.exists()
    assert EventLog(tmp_path / "aside").events() == [event(0)]
