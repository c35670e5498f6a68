"""A training process: `python -m simmerge_core.demo.worker`.

Reads one job per line (JSON) from standard input and answers on standard output with one JSON line per progress report
and one when a job is done. It ends when its input ends, and soon after its reader is gone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from simmerge_core.demo.exchange import PeerLostError, SharedFileExchange
from simmerge_core.demo.jobs import Job, run_job
from simmerge_core.demo.layout import parameter_count
from simmerge_core.errors import SimMergeError


def _answer(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def _run(request: dict[str, Any]) -> None:
    job = Job.from_dict(request["job"])
    name = job.recipe.checkpoint
    shard, exchange = request.get("shard"), None
    if shard is not None:
        exchange = SharedFileExchange(
            Path(request["shared"]),
            shard=shard,
            shards=job.recipe.shards,
            size=parameter_count(job.recipe.architecture) + 1,
            peer=socket.socket(fileno=request["peer"]),
        )
    run_job(job, progress=lambda step: _answer(checkpoint=name, step=step), shard=shard, exchange=exchange)
    _answer(checkpoint=name, done=True)


def main() -> int:
    """Serve jobs until standard input ends."""
    # Ctrl-C reaches the whole process group; the building process decides and ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for line in sys.stdin:
            _run(json.loads(line))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads; keep the exit quiet
        return 1
    except PeerLostError:
        return 1
    except SimMergeError as error:
        _answer(error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
