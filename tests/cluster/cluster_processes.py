"""Processes that end with the test session, also with one that is killed itself.

Every process carries a mark in its environment, which its children inherit: killing a service means killing all that
bear its mark, as the end of a container would. A reaper process waits for the end of the session.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

MARK = "SIMMERGE_TEST_PROCESS"
_DEADLINE = 240.0


class Processes:
    """Named processes, with one log file each."""

    def __init__(self, logs: Path) -> None:
        self.logs, self._token, self._running = logs, uuid.uuid4().hex, dict[str, subprocess.Popen[bytes]]()
        logs.mkdir(parents=True, exist_ok=True)
        self._reaper = subprocess.Popen(
            [sys.executable, __file__, self._token], stdin=subprocess.PIPE, start_new_session=True
        )

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a process under a name that no living process has."""
        assert name not in self._running, f"{name} runs already"
        with self.log_file(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**environment, MARK: f"{self._token}:{name}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )
        self._running[name] = process
        # Some programs (PostgreSQL) write their title over their environment, so the reaper is told of them.
        assert self._reaper.stdin is not None
        self._reaper.stdin.write(f"{process.pid} {_birth(process.pid)}\n".encode())
        self._reaper.stdin.flush()
        return process

    def wait(self, name: str) -> int:
        """Wait for a process that ends by itself; its exit code."""
        return self._running.pop(name).wait(_DEADLINE * 5)

    def alive(self, name: str) -> bool:
        """Whether the process itself, not only its children, still runs."""
        return name in self._running and self._running[name].poll() is None

    def kill(self, name: str) -> None:
        """SIGKILL for the process and all its children, as the end of a container is."""
        process = self._running.pop(name)
        process.kill()
        _kill_marked(f"{self._token}:{name}")
        process.wait(_DEADLINE)

    def stop(self, name: str) -> None:
        """SIGTERM for the process alone, and then what `kill` does."""
        process = self._running[name]
        process.terminate()
        try:
            process.wait(_DEADLINE)
        finally:
            self.kill(name)

    def log_file(self, name: str) -> Path:
        """Where a process's output goes."""
        return self.logs / f"{name}.log"

    def told(self, name: str, characters: int = 4000) -> str:
        """The end of a process's output, for a message."""
        return self.log_file(name).read_text(errors="replace")[-characters:]

    def close(self) -> None:
        """Kill everything that still runs."""
        for name in list(self._running):
            self.kill(name)
        _kill_marked(self._token)
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        self._reaper.wait(_DEADLINE)


def left_over(mark: str) -> list[int]:
    """Ids of living processes that bear a mark."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:  # ended meanwhile, or somebody else's
                continue
            if any(entry == wanted or entry.startswith(wanted + b":") for entry in environment.split(b"\0")):
                found.append(int(folder.name))
    return found


def _kill_marked(mark: str) -> None:
    """Kill until none is left: a process that is about to die may have started another."""
    deadline = time.monotonic() + _DEADLINE
    while (found := left_over(mark)) and time.monotonic() < deadline:
        for process in found:
            _kill(process)
        time.sleep(0.05)


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _birth(process: int) -> str:
    """When a process began, in clock ticks since boot: with its id, who it is."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _reap(token: str) -> None:
    """Wait until the session's end of the pipe is closed, and kill what it left."""
    known = [line.split() for line in sys.stdin]
    for process, birth in (entry for entry in known if len(entry) == 2):
        if _birth(int(process)) == birth:
            _kill(int(process))
    _kill_marked(token)


if __name__ == "__main__":
    _reap(sys.argv[1])
