"""The durable bandit: rounds that count once, whatever is killed or runs at once, and a replay that is exact."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from bandit_worker import ARMS, BLOCK, DIMENSION, context_of, new_bandit, play, reward_of
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from simmerge_core.bandit import Context, LinearBandit, LinTS, LinUCB, UniformBandit
from simmerge_core.bandit import durable as durable_module
from simmerge_core.bandit import log as log_module
from simmerge_core.bandit.durable import DurableBandit
from simmerge_core.errors import BanditError

WORKER = Path(__file__).parent / "bandit_worker.py"


@pytest.fixture(scope="module", autouse=True)
def _unsynced() -> Iterator[None]:
    """A killed process loses nothing that the system has taken; only a disk would need waiting for."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def started(tmp_path: Path) -> DurableBandit:
    return DurableBandit.create(tmp_path / "bandit", new_bandit())


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def in_memory(rounds: list[str]) -> LinTS:
    """What an uninterrupted bandit has learned from these rounds, one after the other."""
    bandit = new_bandit()
    for round_id in rounds:
        arm = bandit.select(context_of(round_id), round_id=round_id).arm
        bandit.update(context_of(round_id), arm, reward_of(round_id, arm))
    return bandit


def tamper(folder: Path, n: int, **values: Any) -> None:
    """Change columns of one event where it lies, single file or segment."""
    for path in (folder / "log").glob("*.parquet"):
        frame = pl.read_parquet(path, hive_partitioning=False)
        if n in frame["sequence"]:
            columns = [
                pl.when(pl.col("sequence") == n).then(pl.lit(v, frame.schema[c])).otherwise(pl.col(c)).alias(c)
                for c, v in values.items()
            ]
            frame.with_columns(columns).write_parquet(path)


# --- a history begins once


def test_a_history_begins_once(tmp_path: Path) -> None:
    folder = tmp_path / "bandit"
    first = DurableBandit.create(folder, new_bandit())
    play(first, "r", 2)
    before = files(folder)
    again = DurableBandit.create(folder, new_bandit())
    assert again.state.key == first.state.key
    with pytest.raises(BanditError, match="began from another state"):
        DurableBandit.create(folder, LinTS(ARMS, DIMENSION, seed=12))
    assert files(folder) == before
    assert sorted(p.name for p in folder.iterdir()) == ["log", "warm"]


def test_what_others_put_beside_is_left_alone(tmp_path: Path) -> None:
    encoder = tmp_path / "bandit" / "encoder" / "encoder.json"
    encoder.parent.mkdir(parents=True)
    encoder.write_text("{}")
    play(DurableBandit.create(tmp_path / "bandit", new_bandit()), "r", 2)
    assert encoder.read_text() == "{}"


def test_of_two_that_begin_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rename = tmp_path / "bandit", Path.rename

    def late_rename(self: Path, target: Path) -> Path:
        if Path(target).name == "warm":
            monkeypatch.setattr(Path, "rename", rename)
            DurableBandit.create(folder, LinTS(ARMS, DIMENSION, seed=12))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late_rename)
    with pytest.raises(BanditError, match="began from another state"):
        DurableBandit.create(folder, new_bandit())
    assert LinearBandit.load(folder / "warm").seed == 12
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_a_failure_while_beginning_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no more")

    folder = tmp_path / "bandit"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="no more"):
            DurableBandit.create(folder, new_bandit())
    with pytest.raises(BanditError, match="There is no bandit in"):
        DurableBandit.open(folder)
    DurableBandit.create(folder, new_bandit())


def test_a_log_without_its_warm_state_begins_no_other_history(started: DurableBandit) -> None:
    play(started, "r", 1)
    shutil.rmtree(started.folder / "warm")
    with pytest.raises(BanditError, match="lost its warm state"):
        DurableBandit.create(started.folder, new_bandit())


# --- a round counts once


def test_rounds_are_those_of_the_bandit_in_memory(started: DurableBandit) -> None:
    reference = new_bandit()
    for i in range(10):
        context = context_of(f"r-{i}")
        choice = reference.select(context, round_id=f"r-{i}")
        chosen = started.choose(f"r-{i}", context, request="m", step=2)
        assert (chosen.arm, chosen.propensity, chosen.draw_seed) == (choice.arm, choice.propensity, choice.draw_seed)
        assert (chosen.request, chosen.step, chosen.context_hash) == ("m", 2, context.hash)
        assert (chosen.sequence, chosen.learned_sequence, chosen.reward) == (2 * i, None, None)
        assert started.pending() == [chosen]
        reference.update(context, choice.arm, 0.1 * i)
        learned = started.learn(f"r-{i}", 0.1 * i, evaluation_key="e")
        assert (learned.reward, learned.evaluation_key, learned.learned_sequence) == (0.1 * i, "e", 2 * i + 1)
    assert started.pending() == []
    assert started.state.key == DurableBandit.open(started.folder).state.key == reference.key


def test_calls_made_again_change_nothing(started: DurableBandit) -> None:
    first = started.choose("r", context_of("r"))
    learned = started.learn("r", 0.5, evaluation_key="e")
    before = files(started.folder)
    for bandit in (started, DurableBandit.open(started.folder)):
        assert bandit.choose("r", context_of("r").z) == learned
        assert bandit.learn("r", 0.5, evaluation_key="e") == learned
    assert (first.arm, first.propensity) == (learned.arm, learned.propensity)
    assert files(started.folder) == before


def test_a_round_is_chosen_again_as_it_was_whatever_was_learned_since(started: DurableBandit) -> None:
    first = started.choose("r", context_of("r"))
    play(started, "other", 20)
    assert started.choose("r", context_of("r")) == first


def test_the_state_given_out_is_a_copy(started: DurableBandit) -> None:
    started.state.update(context_of("r"), ARMS[0], 1.0)
    assert started.state.key == new_bandit().key


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.choose("known", context_of("another")), "Round 'known' was chosen on another context"),
        (lambda b: b.choose("n", np.zeros(DIMENSION + 1)), r"shape \(6,\), and this bandit takes \(5,\)"),
        (lambda b: b.choose("n", np.full(DIMENSION, np.nan)), "not finite"),
        (lambda b: b.choose("n", Context(np.zeros(DIMENSION), source="ff")), "made by encoder ff"),
        (lambda b: b.choose("n", Context(np.zeros(DIMENSION), tasks=(("t", math.inf),))), "weight that is not finite"),
        (lambda b: b.choose("", np.zeros(DIMENSION)), "is no round"),
        (lambda b: b.choose("n", np.zeros(DIMENSION), step=-1), "is no round"),
        (lambda b: b.learn("n", 0.5), "Round 'n' was never chosen"),
        (lambda b: b.learn("known", math.nan), "outside"),
        (lambda b: b.learn("known", 1.5), "outside"),
        (lambda b: b.learn("known", "good"), "is no number"),
        (lambda b: b.learn("done", 0.25, evaluation_key="e"), r"Round 'done' has learned the reward 0\.5"),
        (lambda b: b.learn("done", 0.5, evaluation_key="f"), "Round 'done' has learned .*'e'"),
        (lambda b: b.add_arm(ARMS[0]), "is there already"),
        (lambda b: b.add_arm(""), "is no name"),
        (lambda b: b.retire_arm("none"), "There is no arm 'none'"),
        (lambda b: b.add_task("joined"), "has joined already"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    started: DurableBandit, call: Callable[[DurableBandit], Any], message: str
) -> None:
    started.add_task("joined")
    started.choose("known", context_of("known"))
    started.choose("done", context_of("done"))
    started.learn("done", 0.5, evaluation_key="e")
    before, key = files(started.folder), started.state.key
    with pytest.raises(BanditError, match=message):
        call(started)
    assert files(started.folder) == before
    assert started.state.key == key


def test_the_last_arm_stays(started: DurableBandit) -> None:
    for arm in ARMS[1:]:
        started.retire_arm(arm)
    with pytest.raises(BanditError, match="is the last one"):
        started.retire_arm(ARMS[0])
    assert started.choose("r", context_of("r")).arm == ARMS[0]


def test_rounds_are_a_table(started: DurableBandit) -> None:
    started.add_task("new")
    context = Context(context_of("a").z, tasks=(("math", 0.25), ("new", 0.75)))
    chosen = started.choose("a", context, request="m", step=1)
    started.add_arm("extra@0.5")
    started.choose("b", context_of("b"))
    started.learn("a", 0.5, evaluation_key="e")
    table = started.rounds()
    assert table["round_id"].to_list() == ["a", "b"]
    first, second = table.rows(named=True)
    assert first["z"] == context.z.tolist()
    assert (first["tasks"], first["task_weights"]) == (["math", "new"], [0.25, 0.75])
    assert first["arms"] == list(ARMS)
    assert second["arms"] == [*ARMS, "extra@0.5"]
    assert first["probabilities"][first["arms"].index(chosen.arm)] == first["propensity"] == chosen.propensity
    assert (first["chosen_at"], first["learned_at"], first["reward"], first["evaluation_key"]) == (1, 4, 0.5, "e")
    assert first["state_key"] == started.state.key
    assert [second[c] for c in ("learned_at", "reward", "evaluation_key", "state_key")] == [None] * 4
    assert math.isclose(sum(second["probabilities"]), 1.0, rel_tol=1e-12)


# --- arms and tasks that come and go


@pytest.mark.parametrize("policy", [LinTS, LinUCB, UniformBandit])
def test_arms_and_tasks_of_the_log_replay(tmp_path: Path, policy: type[LinearBandit]) -> None:
    bandit = DurableBandit.create(tmp_path, policy(ARMS, DIMENSION, mixing=0.2, seed=3))
    play(bandit, "a", 6)
    bandit.add_arm("dare@0.5")
    waiting = bandit.choose("waiting", context_of("waiting"))
    play(bandit, "b", 6)
    bandit.add_task("new")
    bandit.retire_arm(waiting.arm)
    bandit.learn("waiting", 0.5)  # begun before its arm left
    bandit.choose("c", Context(context_of("c").z, tasks=(("new", 1.0),)))
    bandit.learn("c", 1.0)
    bandit.add_arm(waiting.arm)
    opened = DurableBandit.open(tmp_path)
    assert (opened.state.arms, opened.state.tasks) == ([*ARMS, "dare@0.5"], ("new",))
    replay = opened.replay()
    assert replay.differences == []
    assert (replay.identical, replay.state_key) == (True, bandit.state.key)
    assert (replay.events, replay.rounds, replay.learned, replay.pending) == (32, 14, 14, 0)


def test_a_call_takes_what_others_wrote_meanwhile(started: DurableBandit) -> None:
    other = DurableBandit.open(started.folder)
    assert other.pending() == []
    play(started, "a", 3)
    started.add_arm("dare@0.5")
    with pytest.raises(BanditError, match="is there already"):
        other.add_arm("dare@0.5")
    other.choose("b", context_of("b"))
    assert [r.round_id for r in started.pending()] == ["b"]
    assert started.state.key == other.state.key


def test_who_loses_a_number_decides_again_on_what_won(started: DurableBandit, monkeypatch: pytest.MonkeyPatch) -> None:
    link, other = os.link, DurableBandit.open(started.folder)
    started.choose("r", context_of("r"))

    def late_link(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        other.learn("r", 0.25)
        link(source, target)

    monkeypatch.setattr(os, "link", late_link)
    with pytest.raises(BanditError, match=r"has learned the reward 0\.25"):
        started.learn("r", 0.5)
    monkeypatch.setattr(os, "link", late_link)
    other.choose("r2", context_of("r2"))
    with pytest.raises(BanditError, match=r"has learned the reward 0\.25"):
        other.learn("r", 0.75)
    assert started.state.posterior.updates.sum() == 1


# --- killed


def spawn(folder: Path, name: str, rounds: int, point: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, str(WORKER), str(folder), name, str(rounds), point]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def run_together(workers: list[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes of workers that begin when all are ready."""
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
    return [worker.wait(timeout=120) for worker in workers]


@pytest.mark.parametrize(
    ("point", "known", "pending"),
    [
        ("between", 4, ["r-3"]),  # after choose, before learn
        ("written", 3, ["r-2"]),  # the reward is in a temporary file
        ("linked", 3, []),  # the reward counts, and the process never knew
        ("merging", 17, ["r-16"]),  # a block is written and not yet in place
        ("compacting", 17, ["r-16"]),  # one of its single files is deleted, the others not yet
    ],
)
def test_a_killed_process_goes_on_where_it_was(
    started: DurableBandit, monkeypatch: pytest.MonkeyPatch, point: str, known: int, pending: list[str]
) -> None:
    monkeypatch.setattr(log_module, "BLOCK", BLOCK)
    rounds = 20
    assert run_together([spawn(started.folder, "r", rounds, point)]) == [-signal.SIGKILL]
    opened = DurableBandit.open(started.folder)
    assert opened.rounds().height == known
    assert [r.round_id for r in opened.pending()] == pending
    play(opened, "r", rounds)  # the same calls again
    assert opened.rounds()["round_id"].to_list() == [f"r-{i}" for i in range(rounds)]
    assert opened.rounds()["reward"].null_count() == 0
    assert opened.state.key == in_memory([f"r-{i}" for i in range(rounds)]).key
    assert opened.replay().identical


@pytest.mark.parametrize("count", [2, 4])
def test_processes_at_once_lose_nothing(started: DurableBandit, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(log_module, "BLOCK", BLOCK)
    rounds, names = 50, [f"w{i}" for i in range(count)]
    assert run_together([spawn(started.folder, name, rounds) for name in names]) == [0] * count
    opened = DurableBandit.open(started.folder)
    table = opened.rounds()
    assert sorted(table["round_id"]) == sorted(f"{name}-{i}" for name in names for i in range(rounds))
    assert sorted([*table["chosen_at"], *table["learned_at"]]) == list(range(2 * count * rounds))
    replay = opened.replay()
    assert replay.differences == []
    assert replay.state_key == opened.state.key
    assert replay.cumulative_reward == pytest.approx(table["reward"].sum(), rel=1e-12)
    for number, arm in enumerate(ARMS):  # ridge regression on everything at once
        mine = table.filter(pl.col("arm") == arm)
        z, rewards = np.array(mine["z"].to_list()).reshape(-1, DIMENSION), mine["reward"].to_numpy()
        precision = 0.5 * np.eye(DIMENSION) + z.T @ z
        posterior = opened.state.posterior
        np.testing.assert_allclose(posterior.precision[number], precision, atol=1e-10)
        np.testing.assert_allclose(posterior.mean[number], np.linalg.solve(precision, z.T @ rewards), atol=1e-10)
    assert len(list((started.folder / "log").glob("*-*.parquet"))) >= 2 * count * rounds // BLOCK - 1


# --- snapshots are a cache


@pytest.fixture
def many(started: DurableBandit, monkeypatch: pytest.MonkeyPatch) -> DurableBandit:
    monkeypatch.setattr(durable_module, "SNAPSHOT_EVERY", 8)
    play(started, "r", 18)
    return started


def snapshots(bandit: DurableBandit) -> list[str]:
    return sorted(p.name for p in (bandit.folder / "snapshots").iterdir())


def opened_from(bandit: DurableBandit, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Key of the state as opened, and how many events were applied for it."""
    applied = []
    apply = durable_module.apply
    with monkeypatch.context() as patched:
        patched.setattr(durable_module, "apply", lambda *a: (applied.append(a), apply(*a)))
        return DurableBandit.open(bandit.folder).state.key, len(applied)


def test_the_newest_snapshots_are_kept_and_used(many: DurableBandit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert snapshots(many) == ["000000000023", "000000000031"]
    assert opened_from(many, monkeypatch) == (many.state.key, 4)
    shutil.rmtree(many.folder / "snapshots")
    assert opened_from(many, monkeypatch) == (many.state.key, 36)


@pytest.mark.parametrize("damage", ["truncated", "json", "absent", "another", "older"])
def test_a_snapshot_that_is_wrong_is_skipped(many: DurableBandit, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    newest = many.folder / "snapshots" / "000000000031"
    if damage == "truncated":
        (newest / "posterior.safetensors").write_bytes((newest / "posterior.safetensors").read_bytes()[:-9])
    elif damage == "json":
        (newest / "bandit.json").write_text("{")
    elif damage == "absent":
        (newest / "bandit.json").unlink()
    elif damage == "another":
        LinTS(ARMS, DIMENSION, seed=4).save(newest)
    else:  # whole and of this bandit, but of an earlier event
        shutil.rmtree(newest)
        shutil.copytree(many.folder / "snapshots" / "000000000023", newest)
    assert opened_from(many, monkeypatch) == (many.state.key, 12)
    shutil.rmtree(many.folder / "snapshots" / "000000000023")
    assert opened_from(many, monkeypatch) == (many.state.key, 36)
    play(many, "r", 24)
    assert snapshots(many)[-1] == "000000000047"


def test_a_snapshot_after_a_choice_is_that_of_the_last_change(
    started: DurableBandit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_module, "SNAPSHOT_EVERY", 5)
    play(started, "r", 3)
    assert snapshots(started) == ["000000000004"]
    assert opened_from(started, monkeypatch) == (started.state.key, 1)


def test_a_log_that_lost_its_end_is_refused(many: DurableBandit) -> None:
    for n in range(30, 36):
        (many.folder / "log" / f"{n:012d}.parquet").unlink()
    with pytest.raises(BanditError, match="ends before event 31"):
        _ = DurableBandit.open(many.folder).state
    with pytest.raises(BanditError, match="Event 35 is missing"):
        many.pending()
    shutil.rmtree(many.folder / "snapshots")
    assert DurableBandit.open(many.folder).rounds().height == 15


@pytest.mark.parametrize("fault", [OSError, SafetensorError])
def test_a_disk_that_takes_no_snapshot_takes_the_round(
    started: DurableBandit, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    def fail(*_: Any) -> None:
        raise fault("no space")

    monkeypatch.setattr(durable_module, "SNAPSHOT_EVERY", 2)
    monkeypatch.setattr(LinTS, "save", fail)
    play(started, "r", 2)
    assert started.rounds().height == 2


def test_what_a_killed_process_left_beside_snapshots_and_warm_state_is_removed(tmp_path: Path) -> None:
    left = [
        tmp_path / "snapshots" / ".000000000007.host~1.0.tmp",
        tmp_path / ".warm.0",
        tmp_path / "..warm.0.host~1.0.tmp",
    ]
    for folder in left:
        folder.mkdir(parents=True)
        os.utime(folder, (1.0, 1.0))
    play(DurableBandit.create(tmp_path, new_bandit()), "r", 32)
    assert [folder for folder in left if folder.exists()] == []


# --- what does not hold together


def test_a_round_that_is_chosen_twice_is_refused_by_name(started: DurableBandit) -> None:
    play(started, "r", 3)
    tamper(started.folder, 4, round_id="r-0")
    for call in (DurableBandit.pending, DurableBandit.replay):
        with pytest.raises(BanditError, match=r"Round 'r-0' is chosen twice .* by events 0 and 4"):
            call(DurableBandit.open(started.folder))


@pytest.mark.parametrize(("name", "message"), [("r-0", "learned in event 1 already"), ("x", "was never chosen")])
def test_a_round_that_is_learned_twice_or_from_nothing_is_refused_by_name(
    started: DurableBandit, name: str, message: str
) -> None:
    play(started, "r", 3)
    tamper(started.folder, 3, round_id=name)
    for call in (DurableBandit.pending, DurableBandit.replay):
        with pytest.raises(BanditError, match=f"Event 3 of .* learns from round '{name}', which {message}"):
            call(DurableBandit.open(started.folder))


@pytest.mark.parametrize(
    ("n", "changed", "message"),
    [
        (5, {"reward": 0.123}, "learn r-2): the posterior is not the one that was logged"),
        (5, {"reward": 7.0}, "lies outside"),
        (5, {"state_key": "0" * 64}, "the posterior is not the one that was logged"),
        (4, {"z": [0.0] * DIMENSION}, "choose r-2): its context is not what its hash says"),
        (4, {"propensity": 0.5}, "done again, propensity came out otherwise"),
        (4, {"draw_seed": "0" * 32}, "done again, draw seed came out otherwise"),
        (4, {"probabilities": [0.5, 0.25, 0.25]}, "done again, probabilities came out otherwise"),
        (4, {"arms": ["x", "y", "z"]}, "done again, arms came out otherwise"),
        (5, {"arm": "none"}, "it learns for arm 'none'"),
    ],
)
def test_a_replay_names_the_first_event_that_was_changed(
    started: DurableBandit, n: int, changed: dict[str, Any], message: str
) -> None:
    play(started, "r", 6)
    assert started.replay().identical
    tamper(started.folder, n, **changed)
    before = files(started.folder)
    replay = DurableBandit.open(started.folder).replay()
    assert not replay.identical
    assert replay.differences[0].startswith(f"Event {n} (")
    assert message in replay.differences[0]
    assert files(started.folder) == before


def test_a_changed_reward_is_refused_by_whoever_goes_on_from_it(started: DurableBandit) -> None:
    play(started, "r", 3)
    key = started.state.key
    tamper(started.folder, 3, reward=0.123)
    with pytest.raises(BanditError, match=r"Event 5 of .* cannot be relied on .* replay the log"):
        DurableBandit.open(started.folder).choose("n", context_of("n"))
    tamper(started.folder, 3, reward=7.0)
    with pytest.raises(BanditError, match=r"Event 3 of .* outside"):
        DurableBandit.open(started.folder).learn("n", 0.5)
    assert started.state.key == key  # it had read them as they were


def test_a_replay_reports_how_far_it_is(started: DurableBandit) -> None:
    play(started, "r", 40)
    told: list[tuple[str, float]] = []
    replay = started.replay(progress=lambda message, fraction: told.append((message, fraction)))
    assert [fraction for _, fraction in told] == [0.8, 1.0]
    assert replay.seconds > 0.0
    assert replay.cumulative_reward == pytest.approx(started.rounds()["reward"].sum(), rel=1e-12)


def test_a_replay_of_nothing_is_the_warm_state(started: DurableBandit) -> None:
    replay = started.replay()
    assert (replay.events, replay.identical, replay.state_key) == (0, True, new_bandit().key)


# --- any history, interrupted anywhere

OPERATIONS = st.one_of(
    st.tuples(st.just("choose"), st.integers(0, 30)),
    st.tuples(st.just("learn"), st.integers(0, 30)),
    st.tuples(st.just("add_arm"), st.integers(0, 3)),
    st.tuples(st.just("retire_arm"), st.integers(0, 5)),
    st.tuples(st.just("add_task"), st.integers(0, 2)),
    st.tuples(st.just("reopen"), st.integers(0, 1)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), OPERATIONS), max_size=40), st.sampled_from([LinTS, LinUCB]))
def test_any_history_is_that_of_an_uninterrupted_bandit(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[tuple[int, tuple[str, int]]],
    policy: type[LinearBandit],
) -> None:
    folder = tmp_path_factory.mktemp("history") / "bandit"
    reference = policy(ARMS, DIMENSION, exploration=0.3, seed=11, mixing=0.1)
    chosen: dict[str, tuple[Context, str, float | None]] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(durable_module, "SNAPSHOT_EVERY", 5)
        patched.setattr(log_module, "BLOCK", 4)
        DurableBandit.create(folder, reference)
        handles = [DurableBandit.open(folder), DurableBandit.open(folder)]
        for which, (kind, value) in history:
            name = f"r{value}"
            if kind == "reopen":
                handles[value] = DurableBandit.open(folder)
            elif kind == "choose":
                context = Context(context_of(name).z, tasks=((f"t{value % 3}", 0.5),))
                made = handles[which].choose(name, context)
                if name not in chosen:
                    choice = reference.select(context, round_id=name)
                    chosen[name] = (context, choice.arm, None)
                    assert (made.propensity, made.draw_seed) == (choice.propensity, choice.draw_seed)
                assert made.arm == chosen[name][1]
            elif kind == "learn" and name in chosen:
                context, arm, learned = chosen[name]
                handles[which].learn(name, reward_of(name, arm))
                if learned is None:
                    reference.update(context, arm, reward_of(name, arm))
                    chosen[name] = (context, arm, reward_of(name, arm))
            elif kind in {"add_arm", "retire_arm", "add_task"}:
                subject = [*ARMS, "extra-0", "extra-1", "extra-2"][value] if kind != "add_task" else f"t{value}"
                outcomes = [_attempt(bandit, kind, subject) for bandit in (reference, handles[which])]
                assert outcomes[0] == outcomes[1]
        assert [r.round_id for r in handles[0].pending()] == [n for n, (_, _, r) in chosen.items() if r is None]
        assert [h.state.key for h in handles] == [reference.key] * 2
        replay = DurableBandit.open(folder).replay()
    assert replay.differences == []
    assert replay.state_key == reference.key
    shutil.rmtree(folder)


def _attempt(bandit: Any, kind: str, subject: str) -> str | None:
    try:
        getattr(bandit, kind)(subject)
    except BanditError as error:
        return str(error)
    return None
