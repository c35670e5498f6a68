"""Answers to many jobs, from this process or from several: same answers, whatever their number."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import IO

from simmerge_core.errors import EvaluationError
from simmerge_core.labels.bench import Answer, Bench, Job, Setting

_COMMAND = (sys.executable, "-m", "simmerge_core.labels.worker")
_TRIES = 2  # times a job may end its process before it is given up


def answers(jobs: Sequence[Job], setting: Setting, *, workers: int) -> Iterator[Answer]:
    """Yield the answer of every job, in the order in which they are ready.

    Jobs on the same checkpoints stay together in one process, and neighbours in `jobs` follow each other, so that
    weights are read once. Each process computes on one torch thread. Closing the iterator ends the processes.

    Raises
    ------
    EvaluationError
        If the processes cannot be started. A process that dies on a job is started again; a job that ends it twice
        gets an answer that says so.
    """
    groups = [list(group) for _, group in groupby(jobs, key=lambda job: job.checkpoints)]
    workers = min(workers, len(groups))
    if workers <= 1:
        bench = Bench(setting)
        for job in jobs:
            yield bench.answer(job)
        return
    waiting: queue.SimpleQueue[list[Job]] = queue.SimpleQueue()
    ready: queue.SimpleQueue[Answer | EvaluationError] = queue.SimpleQueue()
    for group in groups:
        waiting.put(group)
    processes = [_taken(setting) for _ in range(workers)]
    threads = [
        threading.Thread(target=_serve, args=(process, waiting, ready), name=f"labels-{i}", daemon=True)
        for i, process in enumerate(processes)
    ]
    complete = False
    try:
        for thread in threads:
            thread.start()
        for _ in jobs:
            answer = ready.get()
            if isinstance(answer, EvaluationError):
                raise answer
            yield answer
        complete = True
    finally:
        while not waiting.empty():
            waiting.get_nowait()
        for process in processes:
            if not (complete and _given_back(process)):
                process.stop()
        for thread in threads:
            thread.join(timeout=10)


_kept: list[_Process] | None = None  # idle processes, within `kept_workers`
_kept_lock = threading.Lock()


@contextmanager
def kept_workers() -> Iterator[None]:
    """Within this context, processes that are done wait for the next call instead of ending.

    Starting one takes longer than scoring a hundred small models: most of it is the import of lm-eval. A process that
    is used again forgets everything that it knew but its imports. Contexts may be nested: the outermost one counts.
    """
    global _kept  # noqa: PLW0603 - the processes belong to this process as a whole, as its imports do
    with _kept_lock:
        outermost = _kept is None
        _kept = [] if _kept is None else _kept
    try:
        yield
    finally:
        if outermost:
            with _kept_lock:
                idle, _kept = _kept or [], None
            for process in idle:
                process.stop()


def _taken(setting: Setting) -> _Process:
    with _kept_lock:
        process = _kept.pop() if _kept else None
    if process is None:
        return _Process(setting)
    process.use(setting)
    return process


def _given_back(process: _Process) -> bool:
    with _kept_lock:
        if _kept is None:
            return False
        _kept.append(process)
        return True


def _serve(
    process: _Process,
    waiting: queue.SimpleQueue[list[Job]],
    ready: queue.SimpleQueue[Answer | EvaluationError],
) -> None:
    while True:
        try:
            group = waiting.get_nowait()
        except queue.Empty:
            return
        for job in group:
            for attempt in range(_TRIES):
                try:
                    ready.put(process.ask(job))
                    break
                except _Ended as ended:
                    if process.stopped:
                        return
                    if not process.has_answered and attempt + 1 == _TRIES:
                        ready.put(EvaluationError(f"A labelling process could not be started: {ended}"))
                        return
                    if attempt + 1 == _TRIES:
                        ready.put(Answer(job.number, {}, f"it ended its process {_TRIES} times: {ended}"))


class _Ended(Exception):
    """The process ended before it answered; says how."""


class _Process:
    """One worker process, started when first asked and again after it died."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._told = False
        self._child: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self._lock = threading.Lock()
        self.stopped = False
        self.has_answered = False

    def use(self, setting: Setting) -> None:
        """Tell a process that is used again what holds now, and have it forget the weights it has read."""
        self._setting, self._told, self.has_answered = setting, False, False

    def ask(self, job: Job) -> Answer:
        child = self._started()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            if not self._told:  # may fail too: the child can be gone before it has read what it needs to know
                child.stdin.write(self._setting.to_json() + "\n")
                self._told = True
            child.stdin.write(json.dumps(asdict(job)) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except (OSError, ValueError):
            line = ""
        if not line.endswith("\n"):
            raise _Ended(self._last_words(child))
        self.has_answered = True
        return Answer(**json.loads(line))

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
        with self._lock:  # a thread may be reading the last words of its child
            if self._log is not None:
                self._log.close()

    def _started(self) -> subprocess.Popen[str]:
        with self._lock:
            if self.stopped:
                raise _Ended("stopped")
            if self._child is None:
                self._told = False
                if self._log is not None:
                    self._log.close()
                self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process is
                self._child = subprocess.Popen(
                    _COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._log,
                    text=True,
                    encoding="utf-8",
                    env=_environment(),
                )
            return self._child

    def _last_words(self, child: subprocess.Popen[str]) -> str:
        child.kill()
        code = child.wait()
        words = ""
        with self._lock:
            if self._child is child:
                self._child = None
            if self._log is not None and not self._log.closed:
                self._log.seek(0)
                text = self._log.read().decode("utf-8", "replace").strip()
                words = text.splitlines()[-1][:300] if text else ""
        return f"exit status {code}{', ' + words if words else ''}"


def _environment() -> dict[str, str]:
    """This environment, on one computing thread, with this very package importable.

    The C library is told to keep freed memory: otherwise each large activation is mapped and faulted in anew, which
    costs a small model a quarter of its time. Other C libraries ignore the two variables.
    """
    here = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    memory = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**30))
    quiet = {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **threads, **memory, **quiet, "PYTHONPATH": here if not path else f"{here}{os.pathsep}{path}"}
