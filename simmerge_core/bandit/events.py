"""What can happen to a bandit: one event, its row in a Parquet file, and what every column means."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from simmerge_core.bandit.context import Context
from simmerge_core.errors import BanditError
from simmerge_core.tables.schema import Column, Table

Kind = Literal["choose", "learn", "add_arm", "retire_arm", "add_task"]

_S, _F, _I = pl.String, pl.Float64, pl.Int64

BANDIT_LOG = Table(
    "bandit_log",
    (),
    "one event of an online bandit; a column is null where the event's kind has nothing to say",
    (
        Column("sequence", _I, "place of the event in the history, from 0 without gaps", low=0),
        Column("kind", _S, ", ".join(get_args(Kind))),
        Column("round_id", _S, "round that is chosen for, or learned from", nullable=True),
        Column("request", _S, "choose: merge request that the round belongs to, or empty", nullable=True),
        Column("step", _I, "choose: step of that request's plan", low=0, nullable=True),
        Column("context_hash", _S, "choose: SHA-256 of source, tasks and z", nullable=True),
        Column("source", _S, "choose: key of the encoder that made z, or empty", nullable=True),
        Column("z", pl.List(_F), "choose: the context z(s) of §2.4", unit="1", nullable=True),
        Column("tasks", pl.List(_S), "choose: ids of the target tasks", nullable=True),
        Column("task_weights", pl.List(_F), "choose: weight of each of these tasks", unit="1", nullable=True),
        Column(
            "arm",
            _S,
            "choose, learn: arm that was chosen; add_arm, retire_arm: arm that joins or leaves",
            nullable=True,
        ),
        Column("propensity", _F, "choose: probability of this arm", unit="1", low=0.0, high=1.0, nullable=True),
        Column("arms", pl.List(_S), "choose: every arm there was, retired ones too", nullable=True),
        Column("probabilities", pl.List(_F), "choose: probability of each of `arms`", unit="1", nullable=True),
        Column("draw_seed", _S, "choose: key of the random numbers, 32 hexadecimal digits", nullable=True),
        Column("reward", _F, "learn: utility of the merge", unit="metric", nullable=True),
        Column("evaluation_key", _S, "learn: evaluation that the reward is from, or empty", nullable=True),
        Column("task", _S, "add_task: id of the task that joins", nullable=True),
        Column("state_key", _S, "SHA-256 of settings and posterior after the event; null for choose", nullable=True),
        Column("time", pl.Datetime("us", "UTC"), "when it was written; information only, part of no comparison"),
        Column("writer", _S, "token of the write, by which a writer knows its own event; part of no comparison"),
    ),
    key=("sequence",),
)
"""Schema of every file of a bandit's log."""

_SAYS: dict[str, tuple[str, ...]] = {
    "choose": (
        *("round_id", "request", "step", "context_hash", "source", "z", "tasks", "task_weights"),
        *("arm", "propensity", "arms", "probabilities", "draw_seed"),
    ),
    "learn": ("round_id", "arm", "reward", "evaluation_key", "state_key"),
    "add_arm": ("arm", "state_key"),
    "retire_arm": ("arm", "state_key"),
    "add_task": ("task", "state_key"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of `BANDIT_LOG`; two events are equal if they say the same, whenever and whoever wrote them."""

    sequence: int
    kind: Kind
    round_id: str | None = None
    request: str | None = None
    step: int | None = None
    context_hash: str | None = None
    source: str | None = None
    z: Sequence[float] | None = None
    tasks: Sequence[str] | None = None
    task_weights: Sequence[float] | None = None
    arm: str | None = None
    propensity: float | None = None
    arms: Sequence[str] | None = None
    probabilities: Sequence[float] | None = None
    draw_seed: str | None = None
    reward: float | None = None
    evaluation_key: str | None = None
    task: str | None = None
    state_key: str | None = None
    time: datetime | None = field(default=None, compare=False)
    writer: str | None = field(default=None, compare=False)

    @property
    def context(self) -> Context:
        """What a `choose` event was decided on, bit for bit."""
        assert self.z is not None
        assert self.tasks is not None
        assert self.task_weights is not None
        weights = tuple(zip(self.tasks, self.task_weights, strict=True))
        return Context(np.array(self.z, dtype=np.float64), self.source or "", weights)

    def parquet(self) -> bytes:
        """The event as a Parquet file of one row."""
        row = {name: getattr(self, name) for name in BANDIT_LOG.schema}
        frame = pl.DataFrame([row], schema=dict(BANDIT_LOG.schema))
        out = io.BytesIO()
        frame.write_parquet(out, compression="uncompressed", statistics=False)  # one row: smaller and faster without
        return out.getvalue()


_NAMES = tuple(f.name for f in fields(Event))
assert tuple(BANDIT_LOG.schema) == _NAMES


def events_of(frame: pl.DataFrame, *, where: str) -> list[Event]:
    """The rows of a frame with the columns of `BANDIT_LOG`, in order, as events.

    Raises
    ------
    BanditError
        Naming the first event of an unknown kind, or that lacks what its kind must say.
    """
    found = []
    for values in frame.iter_rows():
        row: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in zip(_NAMES, values, strict=True)}
        found.append(Event(**row))
    for event in found:
        if event.kind not in _SAYS:
            raise BanditError(
                f"Event {event.sequence} of {where} is of the unknown kind {event.kind!r}: read the log with the "
                "version that wrote it, or restore it from a copy."
            )
        if len(event.tasks or ()) != len(event.task_weights or ()):
            raise BanditError(
                f"Event {event.sequence} of {where} gives {len(event.task_weights or ())} weights to "
                f"{len(event.tasks or ())} tasks: restore the log from a copy."
            )
        if len(event.arms or ()) != len(event.probabilities or ()):
            raise BanditError(
                f"Event {event.sequence} of {where} gives {len(event.probabilities or ())} probabilities to "
                f"{len(event.arms or ())} arms: restore the log from a copy."
            )
        lacking = [name for name in _SAYS[event.kind] if getattr(event, name) is None]
        if lacking:
            raise BanditError(
                f"Event {event.sequence} of {where} ({event.kind}) has no {', '.join(lacking)}: restore the log from "
                "a copy."
            )
    return found
