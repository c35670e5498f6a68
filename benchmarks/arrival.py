"""How long after a checkpoint folder lands beside a catalog are its pairs in the feature table, and its labels?

The catalog is a demo catalog from which one checkpoint is held back, and all of it is materialized, labels and selector
too. Then webserver, daemon and code server run as `simmerge ui` starts them, with their own intervals and nothing
switched off; when they have nothing left to do, the folder is dropped where the catalog discovers checkpoints, and
nobody does anything else. Times are seconds after the drop.

    python benchmarks/arrival.py --catalog demo/catalog.yaml --json
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

# What tells a backfill's state is not among Dagster's public names.
from dagster._core.execution.backfill import BulkActionStatus
from orchestration import ROOT
from services import dagster_dev, environment, now_and_then, write_settings

from simmerge_pipeline.event_log import persistent_instance

SIGNALS = ("checkpoints", "weight_gram", "probe_activations", "functional_similarity", "pairwise_features")
LABELS = ("standalone_scores", "merge_labels")
_ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
_PATIENCE = 3600.0
_AT_REST = 90.0  # seconds without a run or backfill, three intervals of the automation


def without_one(catalog: Path, held_back: str | None, folder: Path) -> tuple[Path, Path, str]:
    """A catalog without one checkpoint; the folder of the latter, outside of it; its domain."""
    content = yaml.safe_load(catalog.read_text("utf-8"))
    shutil.copytree(catalog.parent, folder / "catalog")
    wanted = held_back or content["checkpoints"][-1]["id"]
    (entry,) = [e for e in content["checkpoints"] if e["id"] == wanted]
    content["checkpoints"] = [e for e in content["checkpoints"] if e["id"] != wanted]
    content["discover"] = [{"folder": "arrivals"}]
    content["merge_requests"] = []
    (folder / "catalog" / "arrivals").mkdir()
    path = folder / "catalog" / catalog.name
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    aside = folder / wanted
    (folder / "catalog" / entry["path"]).rename(aside)
    (aside / "simmerge.yaml").write_text(f"domain: {entry['domain']}\n", "utf-8")
    return path, aside, entry["domain"]


def until(condition: Callable[[], bool], begun: float) -> float:
    """Seconds from `begun` until a condition holds."""
    while not condition():
        if time.monotonic() - begun > _PATIENCE:
            raise TimeoutError(f"Nothing after {_PATIENCE:.0f} s.")
        time.sleep(0.5)
    return round(time.monotonic() - begun, 1)


def until_at_rest(home: Path) -> None:
    """Wait until Dagster has had nothing to do for some time."""
    open_runs = dg.RunsFilter(statuses=[status for status in dg.DagsterRunStatus if status not in _ENDED])
    begun = last = time.monotonic()
    while time.monotonic() - last < _AT_REST:
        with persistent_instance(home) as instance:
            if instance.get_runs(open_runs, limit=1) or instance.get_backfills(status=BulkActionStatus.REQUESTED):
                last = time.monotonic()
        if time.monotonic() - begun > _PATIENCE:
            raise TimeoutError(f"Dagster is still at work after {_PATIENCE:.0f} s.")
        time.sleep(2)


def measure(catalog: Path, held_back: str | None, folder: Path) -> dict[str, Any]:
    """Materialize all but one checkpoint, drop that, and watch."""
    from simmerge_core.catalog import load_catalog
    from simmerge_pipeline.materialize import materialize_all

    path, aside, _ = without_one(catalog, held_back, folder)
    home, data, id = folder / "home", folder / "data", aside.name
    home.mkdir()
    write_settings(home)
    done = materialize_all(catalog=path, data_root=data, dagster_home=home, progress=now_and_then())
    if not done.ok:
        raise RuntimeError(str(done.failed))
    tasks = load_catalog(path).task_ids

    def materialized(asset: str) -> set[str]:
        with persistent_instance(home) as instance:
            return instance.get_materialized_partitions(dg.AssetKey(asset))

    earlier = {asset: materialized(asset) for asset in (*SIGNALS, *LABELS)}
    found: dict[str, Any] = {"checkpoints_before": len(earlier["checkpoints"]), "tasks": len(tasks)}
    with dagster_dev(home, environment(home, path, data)):
        until_at_rest(home)
        before = _runs(home)
        landing = path.parent / "arrivals" / f".{id}"
        shutil.copytree(aside, landing)
        landing.rename(landing.with_name(id))
        begun, moment = time.monotonic(), time.time()
        for asset in (*SIGNALS, *LABELS):
            own = {id} if asset in ("checkpoints", "weight_gram") else {f"{id}|{task}" for task in tasks}
            found[asset] = until(lambda asset=asset, own=own: own <= materialized(asset), begun)
        found["runs"] = _runs(home) - before
    with persistent_instance(home) as instance:
        again = 0
        for asset in (*SIGNALS, *LABELS):
            records = instance.fetch_materializations(dg.AssetKey(asset), limit=10_000).records
            again += sum(1 for r in records if r.timestamp > moment and r.partition_key in earlier[asset])
    found["earlier_partitions_computed_again"] = again
    return found


def _runs(home: Path) -> int:
    with persistent_instance(home) as instance:
        return instance.get_runs_count()


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--catalog", type=Path, default=ROOT / "demo" / "catalog.yaml")
    parser.add_argument("--checkpoint", help="the one that arrives; the catalog's last by default")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the services end with this process
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.catalog.absolute(), given.checkpoint, Path(folder))
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:36}{value:>10}")


if __name__ == "__main__":
    main()
