"""The pipeline's code location as it is, and a record of which step ran on which node and what it evaluated.

SIMMERGE_TEST_AUDIT is the folder of the record. Where SIMMERGE_TEST_GATE names a file, a step stores two evaluations
and then waits until that file is there: a fault finds it at work, however busy the machine is.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import dagster as dg

import simmerge_pipeline.definitions as location
from simmerge_core.labels.bench import Answer, Bench, Job


def _note(file: str, **what: Any) -> None:
    """Add a line; lines that are as short as these are never torn."""
    about = {"pid": os.getpid(), "node": os.environ.get("CLUSTER_NODE", ""), "time": time.time()}
    with (Path(os.environ["SIMMERGE_TEST_AUDIT"]) / file).open("a") as record:
        record.write(json.dumps({**about, **what}) + "\n")


_answer = Bench.answer
_STORED_EVERY = 3.0  # seconds, after which the store writes what it was given
_number = itertools.count(1)


def _audited(self: Bench, job: Job) -> Answer:
    gate, number = os.environ.get("SIMMERGE_TEST_GATE"), next(_number)
    if gate and number == 2 and not Path(gate).exists():
        time.sleep(_STORED_EVERY + 0.2)
    while gate and number > 2 and not Path(gate).exists():
        time.sleep(0.05)
    answer = _answer(self, job)
    _note("evaluations", model=[*job.checkpoints, *job.actions], tasks=list(job.tasks))
    return answer


if "SIMMERGE_TEST_AUDIT" in os.environ:
    Bench.answer = _audited  # type: ignore[method-assign]
    if "DAGSTER_RUN_STEP_KEY" in os.environ:  # this process is a step on Ray
        _note("steps", step=os.environ["DAGSTER_RUN_STEP_KEY"])


@dg.definitions
def defs() -> dg.Definitions:
    """The pipeline's own, without its sensors: a test says itself what is to be computed."""
    own = location.defs()
    return dg.Definitions(assets=own.assets, resources=own.resources, executor=own.executor)
