"""From events to state: the rounds they tell of, what each does to a bandit, and a replay that checks every bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from simmerge_core.bandit.context import Context
from simmerge_core.bandit.events import Event
from simmerge_core.bandit.policies import LinearBandit
from simmerge_core.errors import BanditError

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Round:
    """One decision and what came of it.

    Attributes
    ----------
    round_id, request, step
        As it was asked for.
    arm, propensity, draw_seed
        As in `Choice`.
    context_hash
        Of the context it was decided on.
    reward, evaluation_key
        What was learned; None as long as the round is pending.
    sequence, learned_sequence
        Numbers of its events in the log; the second is None as long as the round is pending.
    """

    round_id: str
    request: str
    step: int
    arm: str
    propensity: float
    draw_seed: str
    context_hash: str
    reward: float | None
    evaluation_key: str | None
    sequence: int
    learned_sequence: int | None


class Rounds:
    """Every round of a prefix of the log, with the contexts of those that wait for a reward."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.end = 0
        self.by_id: dict[str, Round] = {}
        self._waiting: dict[str, Context] = {}

    @property
    def pending(self) -> list[Round]:
        """Chosen and not learned from, in order."""
        return [self.by_id[round_id] for round_id in self._waiting]

    def context(self, event: Event) -> Context | None:
        """Of the round that an event, not yet taken, learns from."""
        return self._waiting.get(event.round_id or "")

    def take(self, event: Event) -> Context | None:
        """Take the next event; gives the context of the round that it is part of.

        Raises
        ------
        BanditError
            If its number is not the next, or it repeats a round or learns from none.
        """
        if event.sequence != self.end:
            raise BanditError(
                f"The log {self.where} has event {event.sequence} where {self.end} belongs: restore it from a copy."
            )
        context = None
        if event.kind == "choose":
            context = self._chosen(event)
        elif event.kind == "learn":
            context = self._learned(event)
        self.end += 1
        return context

    def _chosen(self, event: Event) -> Context:
        said: Any = event  # what a kind must say was checked when it was read
        earlier = self.by_id.get(said.round_id)
        if earlier is not None:
            raise BanditError(
                f"Round {said.round_id!r} is chosen twice in the log {self.where}, by events {earlier.sequence} and "
                f"{event.sequence}: restore the log from a copy."
            )
        self.by_id[said.round_id] = Round(
            round_id=said.round_id,
            request=said.request,
            step=said.step,
            arm=said.arm,
            propensity=said.propensity,
            draw_seed=said.draw_seed,
            context_hash=said.context_hash,
            reward=None,
            evaluation_key=None,
            sequence=event.sequence,
            learned_sequence=None,
        )
        context = self._waiting[said.round_id] = event.context
        return context

    def _learned(self, event: Event) -> Context:
        said: Any = event
        if said.round_id not in self._waiting:
            earlier = self.by_id.get(said.round_id)
            fault = "was never chosen" if earlier is None else f"learned in event {earlier.learned_sequence} already"
            raise BanditError(
                f"Event {event.sequence} of the log {self.where} learns from round {said.round_id!r}, which {fault}: "
                "restore the log from a copy."
            )
        self.by_id[said.round_id] = replace(
            self.by_id[said.round_id],
            reward=said.reward,
            evaluation_key=said.evaluation_key,
            learned_sequence=event.sequence,
        )
        return self._waiting.pop(said.round_id)

    def fault(self, event: Event, context: Context | None) -> str | None:
        """What an event that was taken says against itself or its round."""
        said: Any = event
        if event.kind == "choose" and context is not None and context.hash != event.context_hash:
            return "its context is not what its hash says"
        if event.kind == "learn" and self.by_id[said.round_id].arm != event.arm:
            return f"it learns for arm {event.arm!r}, and its round chose {self.by_id[said.round_id].arm!r}"
        return None


def apply(bandit: LinearBandit, event: Event, context: Context | None) -> None:
    """Do to a bandit what an event did; the only way that a state moves, live and in a replay.

    Parameters
    ----------
    context
        Of the event's round; a `choose` event moves nothing.

    Raises
    ------
    BanditError
        If the bandit refuses; it has not changed then.
    """
    said: Any = event
    if event.kind == "learn":
        assert context is not None
        bandit.update(context, said.arm, said.reward)
    elif event.kind == "add_arm":
        bandit.add_arm(said.arm)
    elif event.kind == "retire_arm":
        bandit.retire_arm(said.arm)
    elif event.kind == "add_task":
        bandit.add_task(said.task)


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of going through a whole log again.

    Attributes
    ----------
    events, rounds, learned, pending
        How many there are.
    identical
        Whether every decision, propensity and posterior came out bit for bit as logged.
    differences
        One sentence per event that did not, in order; what follows a changed reward differs too.
    state_key
        Key of the state at the end, as recomputed.
    cumulative_reward
        Sum of the rewards, in units of a reward.
    seconds
        What it took.
    """

    events: int
    rounds: int
    learned: int
    pending: int
    identical: bool
    differences: list[str]
    state_key: str
    cumulative_reward: float
    seconds: float


def replay(bandit: LinearBandit, events: Sequence[Event], *, where: str, progress: Progress | None = None) -> Replay:
    """Decide and learn everything again from the state before the first event, and compare with what was logged.

    Parameters
    ----------
    bandit
        State before the first event; it moves to the end of the log.
    where
        Name of the log in messages.

    Raises
    ------
    BanditError
        Naming a round that is repeated, or learned from without having been chosen.
    """
    began = time.perf_counter()
    report = progress or (lambda message, fraction: None)
    rounds, differences, total = Rounds(where), [], 0.0
    for event in events:
        context = rounds.take(event)
        wrong = _wrong(bandit, event, context, rounds.fault(event, context))
        if wrong:
            differences.append(f"Event {event.sequence} ({_subject(event)}): {wrong}.")
        if event.kind == "learn" and event.reward is not None:
            total += event.reward
        if rounds.end % 64 == 0:
            report(f"{rounds.end} of {len(events)} events replayed", rounds.end / len(events))
    report(f"{rounds.end} events replayed", 1.0)
    return Replay(
        events=rounds.end,
        rounds=len(rounds.by_id),
        learned=len(rounds.by_id) - len(rounds.pending),
        pending=len(rounds.pending),
        identical=not differences,
        differences=differences,
        state_key=bandit.key,
        cumulative_reward=total,
        seconds=time.perf_counter() - began,
    )


def _subject(event: Event) -> str:
    return f"{event.kind} {event.round_id or event.arm or event.task}"


def _wrong(bandit: LinearBandit, event: Event, context: Context | None, fault: str | None) -> str | None:
    """What differs between an event and the same done again, which moves the bandit on."""
    said: Any = event
    try:
        if event.kind != "choose":
            apply(bandit, event, context)
            moved = None if bandit.key == event.state_key else "the posterior is not the one that was logged"
            return fault or moved
        if fault:
            return fault
        assert context is not None
        choice = bandit.select(context, round_id=said.round_id)
    except BanditError as error:
        return fault or str(error).rstrip(".")
    pairs = {
        "arms": (tuple(bandit.arms), tuple(said.arms)),
        "arm": (choice.arm, event.arm),
        "propensity": (_bits([choice.propensity]), _bits([said.propensity])),
        "draw seed": (choice.draw_seed, event.draw_seed),
        "probabilities": (_bits(choice.probabilities), _bits(said.probabilities)),
    }
    differing = [name for name, (again, logged) in pairs.items() if again != logged]
    return f"done again, {' and '.join(differing)} came out otherwise" if differing else None


def _bits(values: Any) -> bytes:
    return np.asarray(values, dtype=np.float64).tobytes()
