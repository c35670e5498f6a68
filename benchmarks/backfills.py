"""What a backfill of the signals costs beside our own code, by executor, with real webserver, daemon and code server.

A demo catalog of `--experts` × 5 tasks is trained into `--catalog` if it is not there. Then everything up to the
feature table and the scores of the unmerged models is asked for, anew each time: by the job `backfill`, which drives
all ranges in one process (`job`); by a backfill of Dagster's own, as from the UI, with steps as processes
(`multiprocess`) and on Ray (`ray`). `in_process` is what `simmerge demo` does, without any service.

`in_code` is the time during which at least one step was inside an asset's body, after its imports (steps of one run may
overlap, so this is the union of their intervals); everything else until the backfill ends is process start, imports,
queueing and polling. Overhead per partition is that rest, divided by the partitions written.

    python benchmarks/backfills.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
from orchestration import BACKFILL, ROOT, ask
from services import dagster_dev, environment, now_and_then, ray_head, stop_sensors, write_settings

from simmerge_pipeline.event_log import persistent_instance

ASSETS = (
    "checkpoints",
    "weight_gram",
    "probe_activations",
    "functional_similarity",
    "pairwise_features",
    "standalone_scores",
)
EXECUTORS = ("in_process", "job", "multiprocess", "ray")
LEAST_SHARE = 0.7  # of the wall time of the job `backfill`, in our own code

LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"

STATUS = "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"


def trained(folder: Path, experts: int, workers: int) -> Path:
    """The catalog: the demo's recipe with as many experts; what is there already is not trained again."""
    from simmerge_core.demo import build
    from simmerge_core.demo.presets import PRESETS

    name = f"demo-{experts}"
    PRESETS[name] = replace(PRESETS["demo"], name=name, experts_per_domain=experts // len(PRESETS["demo"].domains))
    return build(folder, preset=name, workers=workers, progress=now_and_then())


def through_the_daemon(catalog: Path, executor: str, folder: Path) -> dict[str, Any]:
    """Launch one backfill of everything at the webserver, wait for its end, and take the event log apart."""
    home = folder / "home"
    home.mkdir(parents=True)
    write_settings(home, ray=executor == "ray")
    link = folder / "catalog"  # made when the sensors are off, which would otherwise begin by themselves
    given = environment(home, link / catalog.name, folder / "data")
    if executor != "ray":
        return backfilled(catalog, home, given, link, by_job=executor == "job")
    # The path of a socket has at most 107 characters, so not below `folder`.
    with tempfile.TemporaryDirectory(prefix="ray") as short, ray_head(Path(short), given) as own:
        os.environ["RAY_ADDRESS"] = own["RAY_ADDRESS"]  # the settings refer to it
        return backfilled(catalog, home, {**given, **own}, link)


def backfilled(
    catalog: Path, home: Path, given: Mapping[str, str], link: Path, *, by_job: bool = False
) -> dict[str, Any]:
    """One backfill of all partitions of the assets, Dagster's own or the job."""
    from simmerge_core.catalog import load_catalog
    from simmerge_pipeline.defs.catalog.sensors import declared_keys

    declared = load_catalog(catalog)
    with dagster_dev(home, given) as port:
        stop_sensors(port)
        link.symlink_to(catalog.parent)
        with persistent_instance(home) as instance:
            for name, keys in declared_keys(declared).items():
                instance.add_dynamic_partitions(name, keys)
        begun = time.time()
        status = _by_job(port) if by_job else _by_backfill(port)
        ended = time.time()
    if status not in ("COMPLETED_SUCCESS", "SUCCESS"):
        raise RuntimeError(f"The backfill ended as {status}: {(home / 'dev.log').read_text()[-3000:]}")
    return taken_apart(home, begun, ended, partitions=(len(declared.checkpoint_ids) + 1) * len(declared.task_ids))


def _by_backfill(port: int) -> str:
    selection = [{"path": [asset]} for asset in ASSETS]
    answer = ask(port, BACKFILL, {"params": {"assetSelection": selection, "allPartitions": True}})
    id = answer["launchPartitionBackfill"]["backfillId"]
    return _ended(lambda: str(ask(port, STATUS, {"id": id})["partitionBackfillOrError"]["status"]))


def _by_job(port: int) -> str:
    selector = {"repositoryName": "__repository__", "repositoryLocationName": "simmerge", "jobName": "backfill"}
    config = {"ops": {"backfill_what_is_missing": {"config": {"assets": list(ASSETS)}}}}
    answer = ask(port, LAUNCH, {"params": {"selector": selector, "runConfigData": config, "mode": "default"}})
    if "run" not in answer["launchRun"]:
        raise RuntimeError(str(answer))
    id = answer["launchRun"]["run"]["runId"]
    return _ended(lambda: str(ask(port, RUN, {"id": id})["runOrError"]["status"]))


def _ended(status: Callable[[], str]) -> str:
    while not (found := status()).startswith(("COMPLETED", "SUCCESS", "FAIL", "CANCELED")):
        time.sleep(0.5)
    return found


def in_this_process(catalog: Path, folder: Path) -> dict[str, Any]:
    """What `simmerge demo` and `python -m simmerge_pipeline.materialize` do: no process is started for a step."""
    from simmerge_pipeline.materialize import materialize_all

    home = folder / "home"
    home.mkdir(parents=True)
    write_settings(home)
    begun = time.time()
    done = materialize_all(catalog=catalog, data_root=folder / "data", dagster_home=home, assets=ASSETS)
    ended = time.time()
    if not done.ok:
        raise RuntimeError(str(done.failed))
    return taken_apart(home, begun, ended, partitions=done.assets[-1].partitions)


def taken_apart(home: Path, begun: float, ended: float, *, partitions: int) -> dict[str, Any]:
    """Wall time, the union of the intervals inside our code, and partitions, from the event log."""
    steps: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with persistent_instance(home) as instance:
        runs = instance.get_runs()
        for run in runs:
            for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
                event = entry.get_dagster_event().step_materialization_data.materialization
                own = float(event.metadata["seconds"].value)  # type: ignore[arg-type]
                steps[run.run_id, event.asset_key.to_user_string()].append((entry.timestamp, own))
    spans: list[tuple[float, float]] = []
    by_asset: dict[str, float] = defaultdict(float)
    for (_, asset), found in steps.items():
        end, own = min(moment for moment, _ in found), sum(share for _, share in found)
        spans.append((end - own, end))
        by_asset[asset] += own
    written = sum(map(len, steps.values()))
    assert sum(len(found) for (_, asset), found in steps.items() if asset == ASSETS[-1]) == partitions
    wall, inside = ended - begun, _union(spans)
    return {
        "wall_seconds": round(wall, 1),
        "in_code_seconds": round(inside, 1),
        "share_in_code": round(inside / wall, 3),
        "partitions": written,
        "runs": len(runs),
        "steps": len(steps),
        "overhead_per_partition": round((wall - inside) / written, 4),
        "overhead_per_step": round((wall - inside) / len(steps), 2),
        "in_code_by_asset": {name: round(value, 1) for name, value in sorted(by_asset.items())},
    }


def _union(spans: list[tuple[float, float]]) -> float:
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def main() -> int:
    """Measure every executor asked for; exit code 1 if the job spends too little in our code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--catalog", type=Path, default=ROOT / "studies" / "backfills", help="folder of the catalog")
    parser.add_argument("--experts", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2, help="processes that train the catalog")
    parser.add_argument("--executor", nargs="+", choices=EXECUTORS, default=EXECUTORS)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the services end with this process
    catalog = trained(given.catalog.absolute(), given.experts, given.workers)
    found: dict[str, dict[str, Any]] = {}
    for executor in given.executor:
        with tempfile.TemporaryDirectory() as folder:
            if executor == "in_process":
                measured = in_this_process(catalog, Path(folder))
            else:
                measured = through_the_daemon(catalog, executor, Path(folder))
        found[executor] = measured
        print(f"{executor}: {measured['wall_seconds']} s, {measured['share_in_code']:.0%} in our code", file=sys.stderr)
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        for name in next(iter(found.values())):
            print(f"{name:24}", *(f"{row[name]!s:>16}" for row in found.values()))
    return int("job" in found and found["job"]["share_in_code"] < LEAST_SHARE)


if __name__ == "__main__":
    sys.exit(main())
