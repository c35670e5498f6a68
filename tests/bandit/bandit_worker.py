"""A process that plays rounds on a durable bandit, and may be killed at a chosen point: ``FOLDER NAME ROUNDS [POINT]``.

Contexts and rewards follow from a round's id and arm, so that any process plays a round alike.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simmerge_core.bandit import Context, LinTS
from simmerge_core.bandit import log as log_module
from simmerge_core.bandit.durable import DurableBandit

ARMS, DIMENSION, BLOCK = ("linear@0.5", "slerp@0.3", "ties@0.7"), 5, 32


def new_bandit(**options: Any) -> LinTS:
    return LinTS(ARMS, DIMENSION, exploration=0.3, regularisation=0.5, seed=11, **options)


def context_of(round_id: str) -> Context:
    return Context(np.random.default_rng(zlib.crc32(round_id.encode())).normal(size=DIMENSION))


def reward_of(round_id: str, arm: str) -> float:
    return float(np.random.default_rng(zlib.crc32(f"{round_id}|{arm}".encode())).uniform())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in(point: str) -> None:
    """Arrange for the process to be killed at a point inside a commit or a compaction."""
    link, unlink = os.link, Path.unlink
    calls = []

    def dying_link(source: Path, target: Path) -> None:
        calls.append(target)
        if point == "written" and len(calls) == 6:
            die()
        link(source, target)
        if point == "linked" and len(calls) == 6:
            die()

    def dying_unlink(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok=missing_ok)
        if point == "compacting" and self.stem.isdecimal():
            die()  # the segment stands, and one of its single files is gone

    @contextlib.contextmanager
    def dying_write(path: Path) -> Iterator[Path]:
        with write(path) as temporary:
            yield temporary
            if point == "merging":
                die()  # the segment is written and not yet in place

    write = log_module.write_atomically
    log_module.write_atomically = dying_write
    os.link, Path.unlink = dying_link, dying_unlink  # type: ignore[assignment,method-assign]


def play(bandit: DurableBandit, name: str, rounds: int, *, dies: bool = False) -> None:
    for i in range(rounds):
        chosen = bandit.choose(f"{name}-{i}", context_of(f"{name}-{i}"), request=name, step=i)
        if dies and i == 3:
            die()
        bandit.learn(chosen.round_id, reward_of(chosen.round_id, chosen.arm), evaluation_key=f"e-{chosen.round_id}")


if __name__ == "__main__":
    folder, name, rounds, point = sys.argv[1], sys.argv[2], int(sys.argv[3]), (sys.argv[4:] or [""])[0]
    log_module.BLOCK = BLOCK
    os.fsync = lambda handle: None  # only power cuts would need it
    die_in(point)
    opened = DurableBandit.open(folder)
    print("ready", flush=True)
    sys.stdin.readline()  # several workers begin together
    play(opened, name, rounds, dies=point == "between")
