"""Whether a run still has a process: what the launcher makes of a code server's answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import grpc
import yaml
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.__generated__ import dagster_api_pb2
from dagster._grpc.__generated__.dagster_api_pb2_grpc import DagsterApiServicer, add_DagsterApiServicer_to_server
from dagster._grpc.types import GetCurrentRunsResult
from dagster_shared.serdes import serialize_value

from simmerge_pipeline.run_launcher import WatchedRunLauncher


@contextmanager
def code_server(runs: Sequence[str]) -> Iterator[int]:
    """A server that knows which runs it executes; its port."""

    class Servicer(DagsterApiServicer):  # type: ignore[misc]
        def GetCurrentRuns(self, request: Any, context: Any) -> Any:
            answer = GetCurrentRunsResult(current_runs=runs, serializable_error_info=None)
            return dagster_api_pb2.GetCurrentRunsReply(serialized_current_runs=serialize_value(answer))

    server = grpc.server(ThreadPoolExecutor(1))
    add_DagsterApiServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def status(port: int | None) -> WorkerStatus:
    """What is said of run `mine`, which a server at `port` started, if any."""
    tags = {} if port is None else {GRPC_INFO_TAG: json.dumps({"host": "127.0.0.1", "port": port})}
    run = dg.DagsterRun(job_name="job", run_id="mine", tags=tags)
    return WatchedRunLauncher().check_run_worker_health(run).status


def test_a_run_is_lost_only_if_its_server_says_that_it_has_it_no_more() -> None:
    with code_server(["mine", "other"]) as port:
        assert status(port) == WorkerStatus.RUNNING
    with code_server(["other"]) as port:
        assert status(port) == WorkerStatus.NOT_FOUND


def test_a_run_of_a_silent_server_or_of_none_is_left_alone() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but not listening
        assert status(nobody.getsockname()[1]) == WorkerStatus.RUNNING
    assert status(None) == WorkerStatus.RUNNING


def test_an_instance_takes_it_from_its_configuration(tmp_path: Path) -> None:
    launcher = {"module": WatchedRunLauncher.__module__, "class": WatchedRunLauncher.__name__}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": launcher}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_launcher, WatchedRunLauncher)
        assert instance.run_launcher.supports_check_run_worker_health
