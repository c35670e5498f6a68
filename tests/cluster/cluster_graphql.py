"""The UI's GraphQL, asked as the UI asks it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

T = TypeVar("T")
_DEADLINE = 600.0

_LAUNCH = """mutation ($parameters: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $parameters) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_BACKFILL = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status error { message } } ... on PythonError { message } } }"""
_RUNS = """query ($filter: RunsFilter) { runsOrError(filter: $filter) { ... on Runs { results {
  runId status tags { key value } } } } }"""
_RUN = """query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"""
_HEALTH = """query ($type: String!) { instance { daemonHealth { daemonStatus(daemonType: $type) { healthy } } } }"""
_STATS = """query ($keys: [AssetKeyInput!]) { assetNodes(assetKeys: $keys) {
  assetKey { path } partitionStats { numPartitions numMaterialized numFailed } } }"""
_SENSOR = """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
  ... on Sensor { sensorState { id status ticks(limit: 1) { status } } } ... on PythonError { message } } }"""
_STOP = """mutation ($id: String) { stopSensor(id: $id) {
  __typename ... on StopSensorMutationResult { instigationState { status } } ... on PythonError { message } } }"""
FINISHED = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "CANCELED", "FAILED"}


class Interface:
    """The web interface at a port of this machine."""

    def __init__(self, port: str) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> Any:
        """The one field that a query asks for."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = Request(self._url, body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        (field,) = content["data"].values()
        return field

    def answers(self) -> bool:
        """Whether questions to each of the database's users are answered: runs, events, and schedules."""
        try:
            self.runs("")
            self.partitions("checkpoints")
            self.sensor("catalog_sensor")
        except HTTPError:
            return False
        return True

    def sensor(self, name: str) -> dict[str, Any]:
        """The state of a sensor, with its latest ticks."""
        selector = {"repositoryName": "__repository__", "repositoryLocationName": "simmerge", "sensorName": name}
        return dict(self.ask(_SENSOR, selector=selector)["sensorState"])

    def stop_sensor(self, name: str) -> None:
        """Turn a sensor off, so that nothing but the test asks for work."""
        assert self.ask(_STOP, id=self.sensor(name)["id"])["instigationState"]["status"] == "STOPPED"

    def launch(self, *assets: str) -> str:
        """Launch a backfill of all partitions of some assets; its id."""
        selection = [{"path": [asset]} for asset in assets]
        answer = self.ask(_LAUNCH, parameters={"assetSelection": selection, "allPartitions": True})
        assert "backfillId" in answer, answer
        return str(answer["backfillId"])

    def status(self, backfill: str) -> str:
        """The status of a backfill."""
        return str(self.ask(_BACKFILL, id=backfill)["status"])

    def runs(self, backfill: str) -> list[dict[str, Any]]:
        """The runs of a backfill, newest first."""
        tag = {"key": "dagster/backfill", "value": backfill}
        return list(self.ask(_RUNS, filter={"tags": [tag]})["results"])

    def daemon_is_healthy(self, type: str) -> bool:
        """Whether one of the daemon's parts, such as BACKFILL, has said lately that it lives."""
        return bool(self.ask(_HEALTH, type=type)["daemonHealth"]["daemonStatus"]["healthy"])

    def run(self, id: str) -> str:
        """The status of a run."""
        return str(self.ask(_RUN, id=id)["status"])

    def partitions(self, asset: str) -> dict[str, int]:
        """How many partitions an asset has, and how many are materialized or failed."""
        (node,) = self.ask(_STATS, keys=[{"path": [asset]}])
        return dict(node["partitionStats"])


def wait_for(found: Callable[[], T], wanted: Callable[[T], bool], told: Callable[[], str] = str) -> T:
    """Ask again and again, until the answer is the wanted one."""
    deadline = time.monotonic() + _DEADLINE
    while not wanted(answer := found()):
        assert time.monotonic() < deadline, f"{answer}\n{told()}"
        time.sleep(0.5)
    return answer


def statuses(runs: Sequence[dict[str, Any]]) -> list[str]:
    """The statuses of runs."""
    return [str(run["status"]) for run in runs]
