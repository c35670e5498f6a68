"""A labelling process: ``python -m simmerge_core.labels.worker`` reads jobs and writes answers, one JSON per line.

A plain child process rather than a multiprocessing pool: it never imports the caller's ``__main__`` (which need not
be guarded), may be started from any thread and from a daemonic process, exchanges text and no pickles, and ends by
itself when its caller is gone.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from simmerge_core.labels.bench import Bench, Job, Setting


def main() -> None:
    """Serve until standard input ends."""
    # Answers go to the original standard output; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    bench: Bench | None = None
    for line in sys.stdin:
        message = json.loads(line)
        if "folders" in message:  # a setting: the first line, and again whenever the process is used anew
            bench = Bench(Setting(**message))
            continue
        assert bench is not None
        job = Job(message["number"], tuple(message["checkpoints"]), tuple(message["actions"]), tuple(message["tasks"]))
        answers.write(json.dumps(asdict(bench.answer(job))) + "\n")


if __name__ == "__main__":
    main()
