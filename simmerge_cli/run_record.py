"""What a long run cost: wall time and peak memory of each stage, written beside the results."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.storage import Location

_SAMPLE_SECONDS = 0.5
_KEPT_RUNS = 20


@dataclass
class Stage:
    """One stage of a run.

    Attributes
    ----------
    seconds
        Wall time.
    peak_tree_bytes
        Greatest sum of the resident sets of this process and all below it, sampled; memory that processes share counts
        once for each. None where there is no /proc.
    peak_process_bytes
        Greatest resident set of a single process so far: this one or any that has ended.
    detail
        What was done, e.g. partitions computed and found up to date.
    """

    name: str
    seconds: float = 0.0
    peak_tree_bytes: int | None = None
    peak_process_bytes: int = 0
    detail: dict[str, Any] | None = None


class RunRecord:
    """Stages of one run; `write` puts them behind those of earlier runs into one JSON file."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._begun = time.time()
        self._start = time.perf_counter()
        self._peak: dict[str, int] = {}
        self._now: str | None = None
        self._stop = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Sample memory in the background meanwhile."""
        thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def enter(self, stage: str) -> None:
        """From now on, samples belong to `stage`."""
        self._now = stage

    def add(self, name: str, seconds: float, detail: dict[str, Any] | None = None) -> None:
        """A stage is done."""
        self.stages.append(Stage(name, round(seconds, 2), self._peak.get(name), peak_process_bytes(), detail))

    def as_dict(self, *, finished: bool) -> dict[str, Any]:
        """The run as JSON values."""
        return {
            "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._begun)),
            "finished": finished,
            "seconds": round(time.perf_counter() - self._start, 2),
            "peak_tree_bytes": max(self._peak.values(), default=None),
            "peak_process_bytes": peak_process_bytes(),
            "stages": [asdict(stage) for stage in self.stages],
            "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        }

    def write(self, path: Location, *, finished: bool) -> None:
        """Append this run to the runs in `path`; a file that cannot be read is started anew."""
        import json

        from simmerge_core.files import write_json

        try:
            runs = json.loads(path.read_text("utf-8"))["runs"]
        except (OSError, ValueError, KeyError, TypeError):
            runs = []
        write_json(path, {"runs": [*runs, self.as_dict(finished=finished)][-_KEPT_RUNS:]})

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            stage, size = self._now, tree_bytes(os.getpid())
            if stage is not None and size is not None:
                self._peak[stage] = max(size, self._peak.get(stage, 0))


def peak_process_bytes() -> int:
    """Greatest resident set of this process and of every ended child, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def tree_bytes(root: int) -> int | None:
    """Sum of the resident sets of a process and all below it, in bytes; None where there is no /proc."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    try:
        entries = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    for process in entries:
        try:
            # The program's name may hold spaces and brackets: the fields follow its last bracket.
            fields = Path(f"/proc/{process}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parents[process], sizes[process] = int(fields[1]), int(fields[21]) * page
    inside = {root}
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        below = [process for process, above in parents.items() if above == parent and process not in inside]
        inside.update(below)
        waiting += below
    return sum(sizes.get(process, 0) for process in inside)
