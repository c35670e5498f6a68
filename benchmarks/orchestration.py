"""What Dagster costs as a catalog grows: ticks, UI queries and backfill submission by checkpoints × tasks.

Checkpoints are catalog entries without weights; their manifests count as materialized, and nothing else, so
that a tick has everything to ask for and the next one nothing. Webserver and code server are real processes.

    python benchmarks/orchestration.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("math", "code", "multilingual", "rag", "instruct")
SIZES = (100, 1000)

PARTITIONS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionStats { numMaterialized numPartitions }
  assetPartitionStatuses { ... on MultiPartitionStatuses { ranges { primaryDimStartKey } } } } } }"""
BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


def catalog_text(checkpoints: int) -> str:
    """A catalog of as many checkpoints and five tasks."""
    lines = ["version: 1", "base: {id: base, path: base}", "checkpoints:"]
    lines += [f"  - {{id: c{i:04d}, path: c{i:04d}, domain: {TASKS[i % len(TASKS)]}}}" for i in range(checkpoints)]
    lines += ["tasks:"]
    for task in TASKS:
        lines += [f"  - {{id: {task}, probes: probe.jsonl, benchmarks: [{{name: {task}_items, metrics: [acc]}}]}}"]
    return "\n".join(lines) + "\n"


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def ask(port: int, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """One GraphQL request to the webserver."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    if "errors" in found:
        raise RuntimeError(str(found["errors"])[:500])
    return found["data"]


@contextmanager
def webserver(home: Path, catalog: Path) -> Iterator[int]:
    """A webserver on a free port of this machine, ready to answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "DAGSTER_HOME": str(home), "SIMMERGE_CATALOG": str(catalog)}
    environment["SIMMERGE_DATA"] = str(home / "data")
    command = [sys.executable, "-m", "dagster_webserver", "-w", str(ROOT / "workspace.yaml"), "-h", "127.0.0.1"]
    log = (home / "webserver.log").open("wb")
    process = subprocess.Popen([*command, "-p", str(port)], cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                ask(port, "{ version }", {})
                break
            except OSError:
                time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()


def measure(checkpoints: int, folder: Path) -> dict[str, float]:
    """Times at one size."""
    from simmerge_pipeline.definitions import defs
    from simmerge_pipeline.defs.catalog.sensors import catalog_sensor, declared_keys
    from simmerge_pipeline.event_log import persistent_instance
    from simmerge_pipeline.resources import CatalogResource, DataRootResource

    (folder / "home").mkdir(parents=True)
    (folder / "probe.jsonl").write_text('{"prompt": "1+1="}\n')
    path = folder / "catalog.yaml"
    path.write_text(catalog_text(checkpoints))
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", folder / "home")
    found: dict[str, float] = {"checkpoints": checkpoints, "partitions": (checkpoints + 1) * len(TASKS)}
    resource = CatalogResource(path=str(path))
    resources = {"catalog": resource, "data": DataRootResource(path=str(folder / "data"))}
    os.environ.update(SIMMERGE_CATALOG=str(path), SIMMERGE_DATA=str(folder / "data"))  # read by the conditions
    with persistent_instance(folder / "home") as instance:
        with dg.build_sensor_context(instance=instance, resources=resources) as context:
            found["sensor_tick_new"] = seconds(lambda: catalog_sensor(context))
        for name, keys in declared_keys(resource.load()).items():
            instance.add_dynamic_partitions(name, keys)
        with dg.build_sensor_context(instance=instance, resources=resources) as context:
            found["sensor_tick_nothing_new"] = seconds(lambda: catalog_sensor(context))
        for key in ("base", *resource.load().checkpoint_ids):
            instance.report_runless_asset_event(dg.AssetMaterialization("checkpoints", partition=key))
        loaded, cursors = defs(), [None]

        def tick() -> None:
            result = dg.evaluate_automation_conditions(defs=loaded, instance=instance, cursor=cursors[-1])
            cursors.append(result.cursor)
            requested = sum(len(result.get_requested_partitions(k)) for k in (dg.AssetKey("probe_activations"),))
            assert requested == (found["partitions"] if len(cursors) == 2 else 0)

        found["automation_tick_everything_missing"] = seconds(tick)
        found["automation_tick_nothing_new"] = seconds(tick)
    with webserver(folder / "home", path) as port:
        variables = {"key": {"path": ["pairwise_features"]}}
        found["ui_partitions_first"] = seconds(lambda: ask(port, PARTITIONS, variables))
        found["ui_partitions"] = min(seconds(lambda: ask(port, PARTITIONS, variables)) for _ in range(3))
        keys = [f"c{i:04d}|{task}" for i in range(checkpoints) for task in TASKS]
        params = {"assetSelection": [{"path": ["probe_activations"]}], "partitionNames": keys}
        answers: list[dict[str, Any]] = []
        found["backfill_submission"] = seconds(lambda: answers.append(ask(port, BACKFILL, {"params": params})))
        assert answers[0]["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", answers
    return found


def main() -> None:
    """Measure every size and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of checkpoints")
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(size, Path(folder)))
    if arguments.json:
        print(json.dumps({"seconds": rows}, indent=2))
        return
    for name in rows[0]:
        print(f"{name:40}", *(f"{row[name]:12.3f}" for row in rows))


if __name__ == "__main__":
    main()
