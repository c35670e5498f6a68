"""Runs in a code server that stands alone, watched: a server that was killed takes its runs with it, and says nothing.

Dagster's own launcher cannot tell whether a run still has a process. Run monitoring then leaves the runs of a killed
container open for ever: they hold their places in the queue and in the pools, and nobody starts them again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

# Dagster has no public interface for launchers; the version is pinned below the next minor one.
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import ConfigurableClassData
from dagster_shared.serdes import deserialize_value


class WatchedRunLauncher(DefaultRunLauncher):
    """`DefaultRunLauncher` that asks the code server whether a run is still among its processes."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> WatchedRunLauncher:
        """Build from the configuration of an instance; there is nothing to configure."""
        return cls(inst_data=inst_data)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True, so that run monitoring asks."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the code server that started a run still has it.

        A run is given up only on a server's word: one that cannot be reached may be restarting, or cut off from here
        while its runs go on. Runs that no server started (`simmerge demo` executes its own) are nobody's to judge.
        """
        address = run.tags.get(GRPC_INFO_TAG)
        if address is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "No code server started this run.")
        try:
            current = _current_runs(json.loads(address))
        except DagsterUserCodeUnreachableError as error:
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"The code server cannot be reached: {error}")
        if run.run_id in current:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The code server was restarted, and the run ended with it.")


def _current_runs(address: Mapping[str, Any]) -> set[str]:
    client = DagsterGrpcClient(
        host=address.get("host", "localhost"),
        port=address.get("port"),
        socket=address.get("socket"),
        use_ssl=bool(address.get("use_ssl", False)),
    )
    return set(deserialize_value(client.get_current_runs(), GetCurrentRunsResult).current_runs)
