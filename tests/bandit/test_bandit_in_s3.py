"""Bandits on a local S3 server: one start, rounds that count once, whatever is killed or lost, and put aside whole."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bandit_worker import BLOCK, context_of, new_bandit, play, reward_of
from bandit_world import World, make_world
from s3_server import Answer, S3Server

from simmerge_core.bandit import LinTS, OnlineBandit, WarmStart, bandit_folder, bandit_names
from simmerge_core.bandit import log as log_module
from simmerge_core.bandit.durable import DurableBandit
from simmerge_core.bandit.online import drop, put_aside
from simmerge_core.errors import BanditError
from simmerge_core.storage import ObjectPath, listed, located
from simmerge_core.tables import DataRoot

pytestmark = pytest.mark.s3

WORKER = Path(__file__).with_name("bandit_worker.py")


def folder_of(s3: S3Server, name: str = "mine-lints") -> ObjectPath:
    found = bandit_folder(DataRoot(s3.root), name)
    assert isinstance(found, ObjectPath)
    return found


@pytest.fixture
def started(s3: S3Server) -> DurableBandit:
    return DurableBandit.create(folder_of(s3), new_bandit())


def names(folder: ObjectPath) -> list[str]:
    return [str(file.path.relative_to(folder)) for file in listed(folder)]


def in_memory(rounds: list[str]) -> LinTS:
    """What an uninterrupted bandit has learned from these rounds, one after the other."""
    bandit = new_bandit()
    for round_id in rounds:
        arm = bandit.select(context_of(round_id), round_id=round_id).arm
        bandit.update(context_of(round_id), arm, reward_of(round_id, arm))
    return bandit


def spawn(folder: ObjectPath, name: str, rounds: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(WORKER), str(folder), name, str(rounds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def ready(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"


def begin(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdin is not None
    worker.stdin.close()


def of_event(environ: dict[str, Any], n: int) -> bool:
    return environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith(f"/log/{n:012d}.parquet")


# --- rounds


def test_processes_at_once_lose_nothing(started: DurableBandit, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "BLOCK", BLOCK)
    workers = [spawn(folder_of(s3), name, 12) for name in ("x", "y")]
    for worker in workers:
        ready(worker)
    for worker in workers:
        begin(worker)
    assert [worker.wait(timeout=180) for worker in workers] == [0, 0]
    opened = DurableBandit.open(folder_of(s3))
    log = opened.rounds()
    assert sorted(log["round_id"]) == sorted(f"{name}-{i}" for name in "xy" for i in range(12))
    assert log["reward"].null_count() == 0
    assert opened.replay().identical
    assert opened.replay().events == 48
    # A block is full, so its events lie in one object, and those after it in one each.
    inside = [name for name in names(folder_of(s3) / "log") if name != ".keep"]
    assert inside[0] == f"{0:012d}-{BLOCK - 1:012d}.parquet"
    assert inside[1:] == [f"{n:012d}.parquet" for n in range(BLOCK, 48)]


@pytest.mark.parametrize("committed", [False, True])
def test_a_killed_process_goes_on_where_it_was(started: DurableBandit, s3: S3Server, committed: bool) -> None:
    worker = spawn(folder_of(s3), "r", 6)
    ready(worker)

    def kill(environ: dict[str, Any]) -> Answer | None:
        if not of_event(environ, 5):  # the reward of the third round
            return None
        if committed:
            s3.handle(environ)
        worker.kill()
        worker.wait()
        return "500 Internal Server Error", b""

    s3.before = kill
    begin(worker)
    assert worker.wait(timeout=120) == -signal.SIGKILL
    s3.before = None
    opened = DurableBandit.open(folder_of(s3))
    assert [r.round_id for r in opened.pending()] == ([] if committed else ["r-2"])
    play(opened, "r", 6)  # the same calls again
    assert opened.rounds()["round_id"].to_list() == [f"r-{i}" for i in range(6)]
    assert opened.state.key == in_memory([f"r-{i}" for i in range(6)]).key
    assert opened.replay().identical


def test_an_event_whose_answer_was_lost_counts_once(started: DurableBandit, s3: S3Server) -> None:
    lost = []

    def lose(environ: dict[str, Any]) -> Answer | None:
        if not of_event(environ, 1) or lost:
            return None
        s3.handle(environ)
        lost.append(True)
        return "500 Internal Server Error", b""

    s3.before = lose
    play(started, "r", 1)
    assert lost
    assert started.replay().events == 2
    assert started.state.key == in_memory(["r-0"]).key


# --- one start


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def warm(world: World) -> WarmStart:
    return world.warm()


@pytest.fixture(scope="module")
def other(world: World) -> WarmStart:
    """On other labels."""
    return World(world.catalog, world.features, world.labels.head(world.labels.height // 2)).warm()


def test_of_two_starts_at_once_one_counts_and_is_whole(s3: S3Server, warm: WarmStart, other: WarmStart) -> None:
    folder, done = folder_of(s3), []

    def overtake(environ: dict[str, Any]) -> None:
        # The first start has put its posterior; the second one begins and ends before it goes on.
        if environ["REQUEST_METHOD"] == "PUT" and "/warm/posterior-" in environ["PATH_INFO"] and not done:
            done.append(True)
            for path, data in second.items():
                s3.put(path, data)

    # What a start writes, as another start wrote it elsewhere.
    elsewhere = folder_of(s3, "other-lints")
    OnlineBandit.start(elsewhere, other)
    second = {
        f.path.key.removeprefix(f"{s3.bucket}/").replace("other-lints", "mine-lints"): f.path.read_bytes()
        for f in listed(elsewhere)
    }
    s3.before = overtake
    online = OnlineBandit.start(folder, warm)
    assert done
    assert (online.durable.state.key, online.encoder.key) == (other.bandit.key, other.encoder.key)
    assert OnlineBandit.open(folder).durable.state.key == other.bandit.key


def test_a_bandit_is_found_begun_and_refused_when_it_is_gone(s3: S3Server, warm: WarmStart) -> None:
    root = DataRoot(s3.root)
    assert bandit_names(root) == []
    online = OnlineBandit.start(folder_of(s3), warm)
    assert bandit_names(root) == ["mine-lints"]
    assert online.begin("two", {"k": 2}, ("a", "b")) == ("a", "b")
    assert online.begin("two", {"k": 2}, ("b", "a")) == ("a", "b")
    drop(folder_of(s3))
    assert listed(folder_of(s3)) == []
    with pytest.raises(BanditError, match="There is no bandit in s3://"):
        OnlineBandit.open(folder_of(s3))


# --- put aside


def test_a_bandit_is_put_aside_with_its_log_and_begins_anew(started: DurableBandit, s3: S3Server) -> None:
    play(started, "r", 3)
    before = names(folder_of(s3))
    aside = put_aside(DataRoot(s3.root), "mine-lints")
    assert str(aside) == f"{s3.root}/bandit/mine-lints.before-1"
    assert isinstance(aside, ObjectPath)
    assert names(aside) == before
    assert DurableBandit.open(aside).rounds().height == 3
    with pytest.raises(BanditError, match="Event 5 is missing"):
        play(started, "later", 1)
    assert listed(folder_of(s3)) == []
    assert DurableBandit.create(folder_of(s3), new_bandit()).rounds().height == 0


def test_an_event_that_comes_while_its_bandit_is_put_aside_is_withdrawn(started: DurableBandit, s3: S3Server) -> None:
    play(started, "r", 1)
    done = []

    def aside_before(environ: dict[str, Any]) -> None:
        # The writer has looked whether the bandit stands; now its warm state goes.
        if of_event(environ, 2) and not done:
            done.append(True)
            s3.delete(f"{folder_of(s3).key.removeprefix(s3.bucket + '/')}/warm/bandit.json")

    s3.before = aside_before
    with pytest.raises(BanditError, match="was put aside or removed meanwhile"):
        play(started, "late", 1)
    assert done
    s3.before = None
    assert "log/000000000002.parquet" not in names(folder_of(s3))


def test_places_are_urls(s3: S3Server) -> None:
    assert folder_of(s3) == located(f"{s3.root}/bandit/mine-lints")
