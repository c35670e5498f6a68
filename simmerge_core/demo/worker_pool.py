"""Start training processes, hand them jobs, collect their progress, and end them whatever happens."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import simmerge_core
from simmerge_core.demo.jobs import Job
from simmerge_core.demo.layout import parameter_count
from simmerge_core.errors import CheckpointError

Report = Callable[[str, int], None]  # checkpoint id, finished steps


class _Worker:
    def __init__(self, number: int, events: queue.Queue[tuple[int, dict[str, Any]]], *, keep: Sequence[int]) -> None:
        package_root = str(Path(simmerge_core.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        # One thread each: the machine is shared between workers, and one thread adds in one order.
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process, closed in `end`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "simmerge_core.demo.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            pass_fds=tuple(keep),
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(number, events), daemon=True)
        self._reader.start()

    def _read(self, number: int, events: queue.Queue[tuple[int, dict[str, Any]]]) -> None:
        output: IO[str] | None = self.process.stdout
        assert output is not None
        for line in output:
            events.put((number, json.loads(line)))
        events.put((number, {"ended": True}))

    def send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise CheckpointError(self.failure()) from error

    def failure(self) -> str:
        self.process.wait(timeout=10)
        self.errors.seek(0)
        lines = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit status {self.process.returncode}"
        return f"A training process of the demo catalog ended early ({reason}): run the build again, it goes on."

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(timeout=5)
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # input that the process never read


class WorkerPool:
    """A fixed number of training processes. Use `worker_pool`, which ends them."""

    def __init__(self, workers: int) -> None:
        """Start the processes; the first two are joined by a socket pair, for a base trained by both."""
        self._events: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()
        self._peers = socket.socketpair()
        ends = [peer.fileno() for peer in self._peers]
        self._workers = []
        for number in range(workers):
            keep = ends[number : number + 1]
            self._workers.append(_Worker(number, self._events, keep=keep))
        self._ends = ends

    def _next(self) -> tuple[int, dict[str, Any]]:
        number, event = self._events.get()
        if "error" in event:
            raise CheckpointError(event["error"])
        if "ended" in event:
            raise CheckpointError(self._workers[number].failure())
        return number, event

    def train_together(self, job: Job, report: Report) -> None:
        """Train one checkpoint of two shards by the first two processes."""
        with tempfile.NamedTemporaryFile(prefix="simmerge-gradients-") as shared:
            shared.truncate(4 * 2 * job.recipe.shards * (parameter_count(job.recipe.architecture) + 1))
            for shard, end in enumerate(self._ends):
                self._workers[shard].send({"job": job.as_dict(), "shard": shard, "shared": shared.name, "peer": end})
            unfinished = {0, 1}
            while unfinished:
                number, event = self._next()
                if "done" in event:
                    unfinished.discard(number)
                elif number == 0:
                    report(job.recipe.checkpoint, event["step"])

    def train_each(self, jobs: Sequence[Job], report: Report) -> None:
        """Train the jobs, longest first, one per free process."""
        waiting = sorted(jobs, key=lambda job: job.recipe.steps)
        running = 0
        for worker in self._workers:
            if waiting:
                worker.send({"job": waiting.pop().as_dict()})
                running += 1
        while running:
            number, event = self._next()
            if "step" in event:
                report(event["checkpoint"], event["step"])
            elif waiting:
                self._workers[number].send({"job": waiting.pop().as_dict()})
            else:
                running -= 1

    def end(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.end()
        for peer in self._peers:
            peer.close()


@contextmanager
def worker_pool(workers: int) -> Iterator[WorkerPool]:
    """Yield a pool of at least two processes and end them afterwards, also on an error or Ctrl-C."""
    pool = WorkerPool(workers)
    try:
        yield pool
    finally:
        pool.end()
