"""A bandit that survives: every decision and reward is an event of a log, and the state a function of its prefix.

    <folder>/warm/            the state before the first event, as `LinearBandit.save` writes it
    <folder>/log/             the events (`simmerge_core.bandit.log`), the only truth
    <folder>/snapshots/<n>/   states after event n, a cache: whatever is wrong there is skipped

A call reads what others have written, decides or updates on that, and commits its event as the next one. If another
was first, it does so again, on the longer prefix. A round counts once however often its calls are made, so a process
that was killed just makes them again.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from simmerge_core.bandit.context import Context
from simmerge_core.bandit.events import Event, Kind
from simmerge_core.bandit.log import EventLog, is_litter, sync_folder
from simmerge_core.bandit.policies import LinearBandit
from simmerge_core.bandit.replaying import Progress, Replay, Round, Rounds, apply, replay
from simmerge_core.bandit.saving import SETTINGS_FILE, save_bandit, saved_key
from simmerge_core.errors import BanditError
from simmerge_core.storage import Location, ObjectPath, begin_folder, has_begun, is_complete, located, removed

SNAPSHOT_EVERY, _SNAPSHOTS = 64, 2
_CHOSEN = ("round_id", "request", "step", "context_hash", "source", "arm", "propensity", "draw_seed")
_LEARNED = ("reward", "evaluation_key", "state_key")
_LISTS = ("z", "tasks", "task_weights", "arms", "probabilities")


class DurableBandit:
    """A `LinearBandit` on a folder, for any number of processes at once; one object serves one thread.

    The log is read when something is first asked, so that a log whose reading is refused can still be replayed.
    """

    def __init__(self, folder: str | Location) -> None:
        self.folder = located(folder)
        self._log = EventLog(self.folder / "log")
        self._warm = LinearBandit.load(self.folder / "warm")
        if not has_begun(self.folder / "log"):
            raise BanditError(
                f"The bandit in {self.folder} has lost its log, which is what it knows: restore it from a copy."
            )
        self._began = self._warm.key
        self._bandit = self._warm
        self._rounds: Rounds | None = None

    @classmethod
    def create(cls, folder: str | Location, bandit: LinearBandit) -> Self:
        """Start a bandit's history from its present state; the folder gets it whole or not at all.

        Raises
        ------
        BanditError
            If the folder has a history from another state.
        """
        folder = located(folder)
        warm = folder / "warm"
        if not is_complete(warm, SETTINGS_FILE):
            if EventLog(folder / "log").frame().height:
                raise BanditError(f"The log in {folder} has lost its warm state: restore {warm} from a copy.")
            if isinstance(folder, ObjectPath):
                begin_folder(folder / "log")
                save_bandit(bandit, warm, once=True)
            else:
                _begin(folder, bandit)
        found = cls(folder)
        if found._warm.key != bandit.key:
            raise BanditError(
                f"The bandit in {folder} began from another state: go on with that one, or give this one a new folder."
            )
        return found

    @classmethod
    def open(cls, folder: str | Location) -> Self:
        """Go on with the bandit in a folder.

        Raises
        ------
        BanditError
            If there is none, or its warm state is damaged.
        """
        return cls(folder)

    @property
    def source(self) -> str:
        """Key of the encoder whose contexts it takes; read from the warm state alone."""
        return self._warm.source

    @property
    def state(self) -> LinearBandit:
        """The bandit at the head of the log, a copy.

        Raises
        ------
        BanditError
            As every other call: if the log is damaged, has gaps or repeated rounds, or leads to another state than it
            says; naming the file, event or round.
        """
        self._read()
        return self._bandit.copy()

    def choose(self, round_id: str, context: Context | np.ndarray, *, request: str = "", step: int = 0) -> Round:
        """Choose an arm for a round, or give the choice that was made for it.

        Parameters
        ----------
        round_id
            Names the round for good; the draw depends on it.
        request, step
            What the round belongs to, for the record.

        Raises
        ------
        BanditError
            If the context is of another encoder or length or not finite, or not the one that the round was chosen on;
            nothing has been written then.
        """
        context = _plain(context)
        if not round_id or step < 0:
            raise BanditError(f"Round {round_id!r}, step {step}, is no round: give an id and a step of at least 0.")
        while True:
            rounds = self._read()
            known = rounds.by_id.get(round_id)
            if known is not None:
                if known.context_hash != context.hash:
                    raise BanditError(
                        f"Round {round_id!r} was chosen on another context ({known.context_hash[:12]}, not "
                        f"{context.hash[:12]}): a round is one decision; give a new one its own id."
                    )
                return known
            choice = self._bandit.select(context, round_id=round_id)
            event = Event(
                sequence=rounds.end,
                kind="choose",
                round_id=round_id,
                request=str(request),
                step=int(step),
                context_hash=context.hash,
                source=context.source,
                z=tuple(context.z.tolist()),
                tasks=tuple(task for task, _ in context.tasks),
                task_weights=tuple(weight for _, weight in context.tasks),
                arm=choice.arm,
                propensity=choice.propensity,
                arms=tuple(self._bandit.arms),
                probabilities=tuple(choice.probabilities.tolist()),
                draw_seed=choice.draw_seed,
            )
            if self._commit(rounds, event, self._bandit):
                return rounds.by_id[round_id]

    def learn(self, round_id: str, reward: float, *, evaluation_key: str = "") -> Round:
        """Learn the reward of a round's arm; the same reward again changes nothing.

        Parameters
        ----------
        evaluation_key
            Evaluation that the reward is from, for the record.

        Raises
        ------
        BanditError
            If the round was never chosen or learned something else, or the reward is not finite or out of range;
            nothing has been written then.
        """
        while True:
            rounds = self._read()
            known = rounds.by_id.get(round_id)
            if known is None:
                raise BanditError(
                    f"Round {round_id!r} was never chosen in {self.folder}: choose it before learning its reward."
                )
            value = self._bandit.checked_reward(known.arm, reward)
            if known.learned_sequence is not None:
                if (known.reward, known.evaluation_key) != (value, evaluation_key):
                    raise BanditError(
                        f"Round {round_id!r} has learned the reward {known.reward!r} (evaluation "
                        f"{known.evaluation_key!r}), not {value!r} ({evaluation_key!r}): a round counts once; give a "
                        "new one its own id."
                    )
                return known
            said = {"round_id": round_id, "arm": known.arm, "reward": value, "evaluation_key": evaluation_key}
            if self._move(rounds, "learn", **said):
                return rounds.by_id[round_id]

    def add_arm(self, arm: str) -> None:
        """As `LinearBandit.add_arm`, for every process and for good."""
        while not self._move(self._read(), "add_arm", arm=_named(arm)):
            pass

    def retire_arm(self, arm: str) -> None:
        """As `LinearBandit.retire_arm`, for every process and for good."""
        while not self._move(self._read(), "retire_arm", arm=_named(arm)):
            pass

    def add_task(self, task: str) -> None:
        """As `LinearBandit.add_task`, for every process and for good."""
        while not self._move(self._read(), "add_task", task=_named(task)):
            pass

    def round(self, round_id: str) -> Round | None:
        """A round as it stands, or None if it was never chosen."""
        return self._read().by_id.get(round_id)

    def pending(self) -> list[Round]:
        """Rounds that were chosen and have no reward yet, in order."""
        return self._read().pending

    def rounds(self) -> pl.DataFrame:
        """One row per round, in the order of choice.

        Columns as in `BANDIT_LOG`, with `chosen_at` and `learned_at`, numbers of the round's events. `reward`,
        `evaluation_key`, `learned_at` and `state_key` (after the update) are null while the round is pending.
        """
        self._read()
        log = self._log.frame()
        chosen = log.filter(pl.col("kind") == "choose").rename({"sequence": "chosen_at"})
        learned = log.filter(pl.col("kind") == "learn").rename({"sequence": "learned_at"})
        joined = chosen.select(*_CHOSEN, "chosen_at", *_LISTS).join(
            learned.select("round_id", *_LEARNED, "learned_at"), on="round_id", how="left", maintain_order="left"
        )
        return joined.select(*_CHOSEN, *_LEARNED[:2], "chosen_at", "learned_at", "state_key", *_LISTS)

    def replay(self, *, progress: Progress | None = None) -> Replay:
        """Go through the whole log from the warm state, and compare every decision and posterior; writes nothing.

        Raises
        ------
        BanditError
            If the log is damaged, has gaps or repeated rounds; other changes are differences.
        """
        return replay(self._warm.copy(), self._log.events(), where=str(self._log.folder), progress=progress)

    def _read(self) -> Rounds:
        """Take what was written since the last look."""
        try:
            if self._rounds is None:
                self._rounds = self._start()
            else:
                self._follow(self._rounds, self._log.events(self._rounds.end))
        except BaseException:
            self._rounds = None  # half of a change may have been taken: read everything again
            raise
        return self._rounds

    def _start(self) -> Rounds:
        # Before the log, so that none is listed which the log as it is then read does not reach.
        snapshots = self._snapshots()
        events = self._log.events()
        if snapshots and snapshots[-1] >= len(events):
            raise BanditError(
                f"The log in {self.folder} ends before event {snapshots[-1]}, whose snapshot was saved: restore the "
                "lost events from a copy, or delete the snapshots folder to go on without them."
            )
        known, number = self._newest(snapshots, events)
        rounds = Rounds(str(self._log.folder))
        for event in events[: number + 1]:
            self._take(rounds, event)
        self._bandit = known
        self._follow(rounds, events[number + 1 :])
        return rounds

    def _newest(self, snapshots: list[int], events: list[Event]) -> tuple[LinearBandit, int]:
        """The newest snapshot whose key is what the log says, and its number; the warm state and -1 without any."""
        for number in reversed(snapshots):
            key = next((e.state_key for e in reversed(events[: number + 1]) if e.state_key), self._warm.key)
            with contextlib.suppress(BanditError, OSError):
                found = LinearBandit.load(self.folder / "snapshots" / f"{number:012d}")
                if found.key == key:
                    return found, number
        return self._warm.copy(), -1

    def _follow(self, rounds: Rounds, events: list[Event]) -> None:
        key = None
        for event in events:
            context = self._take(rounds, event)
            try:
                apply(self._bandit, event, context)
            except BanditError as error:
                raise self._refused(event, str(error).rstrip(".")) from error
            key = event.state_key or key
        if key is not None and key != self._bandit.key:
            raise self._refused(
                events[-1],
                "the state up to it is not the one that was logged: it was changed, or other hardware rounds",
            )

    def _take(self, rounds: Rounds, event: Event) -> Context | None:
        context = rounds.take(event)
        fault = rounds.fault(event, context)
        if fault:
            raise self._refused(event, fault)
        return context

    def _refused(self, event: Event, fault: str) -> BanditError:
        return BanditError(
            f"Event {event.sequence} of the log {self._log.folder} cannot be relied on ({fault}): replay the log to "
            "see where it begins, and restore it from a copy."
        )

    def _move(self, rounds: Rounds, kind: Kind, **said: Any) -> bool:
        """Commit an event that changes the state; False if another was the next."""
        event = Event(sequence=rounds.end, kind=kind, **said)
        moved = self._bandit.copy()
        apply(moved, event, rounds.context(event))
        return self._commit(rounds, replace(event, state_key=moved.key), moved)

    def _commit(self, rounds: Rounds, event: Event, moved: LinearBandit) -> bool:
        if saved_key(self.folder / "warm") != self._began:
            raise self._gone()
        if not self._log.commit(event):
            return False
        if isinstance(self.folder, ObjectPath) and saved_key(self.folder / "warm") != self._began:
            # An object store's folder is put aside object by object, the warm state first: what is written while that
            # stands is taken along, and this may not have been.
            self._log.withdraw(event)
            raise self._gone()
        self._rounds = None  # an interrupt between these lines leaves nothing that is half taken
        rounds.take(event)
        self._bandit, self._rounds = moved, rounds
        if (event.sequence + 1) % SNAPSHOT_EVERY == 0:
            self._save_snapshot(event.sequence)
        return True

    def _gone(self) -> BanditError:
        return BanditError(f"The bandit in {self.folder} was put aside or removed meanwhile: materialize this again.")

    def _snapshots(self) -> list[int]:
        folder = self.folder / "snapshots"
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if len(name) == 12 and name.isdecimal())

    def _save_snapshot(self, number: int) -> None:
        from safetensors import SafetensorError

        folder = self.folder / "snapshots"
        with contextlib.suppress(OSError, SafetensorError):  # the event is committed, and a snapshot only a cache
            self._bandit.save(folder / f"{number:012d}")
            outdated = [f"{old:012d}" for old in self._snapshots()[:-_SNAPSHOTS]]
            litter = [path.name for path in folder.glob(".*") if is_litter(path)] if isinstance(folder, Path) else []
            for name in [*outdated, *litter]:
                removed(folder / name, first=SETTINGS_FILE)


def _begin(folder: Path, bandit: LinearBandit) -> None:
    """Warm state and log of a bandit in a folder of this machine, at once; another's that is there already stays."""
    warm, temporary = folder / "warm", folder / f".warm.{uuid.uuid4().hex}"
    try:
        bandit.save(temporary)
        sync_folder(temporary)
        (folder / "log").mkdir(exist_ok=True)
        temporary.rename(warm)  # never takes the place of a folder that holds something
        sync_folder(folder)
        sync_folder(folder.parent)
    except OSError:
        if not warm.exists():
            raise
    finally:
        litter = [path for name in (".warm.*", "..warm.*") for path in folder.glob(name) if is_litter(path)]
        for left in [temporary, *litter]:
            shutil.rmtree(left, ignore_errors=True)


def _plain(context: Context | np.ndarray) -> Context:
    context = context if isinstance(context, Context) else Context(context)
    if not all(math.isfinite(weight) for _, weight in context.tasks):
        raise BanditError(f"The context has a weight that is not finite for a task ({context.tasks}): give numbers.")
    return context


def _named(name: str) -> str:
    if not name or not isinstance(name, str):
        raise BanditError(f"{name!r} is no name: give an arm or task a name.")
    return name
