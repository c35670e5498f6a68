"""Dagster beside a Ray cluster: an instance of its own, a daemon that may be killed, and backfills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psutil
import yaml
from cluster_ray import GPU_WORKER, RayCluster, kill_tree, until
from dagster._core.execution.backfill import PartitionBackfill

from simmerge_core.catalog import load_catalog
from simmerge_core.tables import DataRoot
from simmerge_pipeline.definitions import defs
from simmerge_pipeline.defs.catalog.sensors import declared_keys

SIGNALS = ("checkpoints", "weight_gram", "probe_activations", "functional_similarity", "pairwise_features")
LABELS = ("standalone_scores", "merge_labels")

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_SHIPPED = _ROOT / "docker" / "ray" / "dagster.yaml"


def base_environment() -> dict[str, str]:
    """What every process needs: `dagster` on the path, and this project and its test location importable."""
    here = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    importable = [str(_HERE), str(_ROOT), os.environ.get("PYTHONPATH", "")]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SIMMERGE_", "RAY_", "DAGSTER_"))}
    return {
        **own,
        **threads,
        "PATH": os.pathsep.join(filter(None, here)),
        "PYTHONPATH": os.pathsep.join(filter(None, importable)),
        "SIMMERGE_WORKERS": "1",
    }


class Deployment:
    """One DAGSTER_HOME, data root and record of what steps did."""

    def __init__(self, folder: Path, catalog: Path, cluster: RayCluster, *, launcher: str, gated: bool = False) -> None:
        self.folder, self.catalog_path, self.cluster = folder, catalog, cluster
        self.home, self.data, self.audit = (folder / name for name in ("home", "data", "audit"))
        for made in (self.home, self.data, self.audit):
            made.mkdir(parents=True, exist_ok=True)
        self._gate = folder / "gate"
        self.environment = {
            **cluster.environment,
            "DAGSTER_HOME": str(self.home),
            "RAY_ADDRESS": cluster.address,
            "SIMMERGE_EXECUTOR": "ray",
            "SIMMERGE_RAY_GPU_RESOURCE": GPU_WORKER,
            "SIMMERGE_CATALOG": str(catalog),
            "SIMMERGE_DATA": str(self.data),
            "SIMMERGE_TEST_AUDIT": str(self.audit),
            "SIMMERGE_TEST_GATE": str(self._gate) if gated else "",
        }
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(self._settings(launcher)))
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> DataRoot:
        return DataRoot(self.data)

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """The instance, as any other process would open it."""
        before = os.environ.get("RAY_ADDRESS")
        os.environ["RAY_ADDRESS"] = self.cluster.address  # the settings refer to it
        try:
            with dg.DagsterInstance.from_config(str(self.home)) as opened:
                yield opened
        finally:
            os.environ.pop("RAY_ADDRESS")
            if before is not None:
                os.environ["RAY_ADDRESS"] = before

    # What happens.

    def start_daemon(self) -> None:
        """Start the daemon, which starts the code server."""
        with (self.folder / "daemon.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                ["dagster-daemon", "run", "-m", "cluster_location"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def kill_daemon(self) -> None:
        """Kill the daemon, its code server, and the runs that it holds, if it is the one that holds them."""
        if self._daemon is not None and self._daemon.poll() is None:
            kill_tree(psutil.Process(self._daemon.pid))
            self._daemon.wait()

    def stop_runs(self) -> None:
        """Stop whatever Ray still runs of this deployment."""
        from ray.job_submission import JobSubmissionClient

        own, client = {run.run_id for run in self.runs()}, JobSubmissionClient(self.cluster.address)
        for job in client.list_jobs():
            if (job.metadata or {}).get("dagster/run-id") in own and not job.status.is_terminal():
                client.stop_job(job.submission_id)

    def open_gate(self) -> None:
        """Let steps go on that wait after their first evaluations."""
        self._gate.touch()

    def backfill(self, *assets: str) -> str:
        """Ask for all partitions of `assets`, as the UI does."""
        graph = defs().resolve_asset_graph()
        with self.instance() as instance:
            for name, keys in declared_keys(load_catalog(self.catalog_path)).items():
                instance.add_dynamic_partitions(name, keys)
            backfill = PartitionBackfill.from_asset_partitions(
                backfill_id=uuid.uuid4().hex[:8],
                asset_graph=graph,
                partition_names=None,
                asset_selection=[dg.AssetKey(asset) for asset in assets],
                backfill_timestamp=time.time(),
                tags={},
                dynamic_partitions_store=instance,
                all_partitions=True,
                title=None,
                description=None,
                run_config=None,
            )
            instance.add_backfill(backfill)
        return backfill.backfill_id

    def wait(self, backfill: str) -> None:
        """Wait until a backfill has ended, successfully."""
        with self.instance() as instance:

            def ended() -> Any:
                found = instance.get_backfill(backfill)
                assert found is not None
                return found if found.status.value.startswith(("COMPLETED", "FAILED", "CANCELED")) else None

            found = until(ended, f"backfill {backfill} ({self.folder / 'daemon.log'})", seconds=400, every=1.0)
            runs = [(run.run_id, run.status.value) for run in instance.get_runs()]
        assert found.status.value == "COMPLETED_SUCCESS", (found.status, found.error, runs)

    # What is found afterwards.

    def runs(self) -> list[dg.DagsterRun]:
        """All runs, oldest first."""
        with self.instance() as instance:
            return list(reversed(instance.get_runs()))

    def events(self, *types: dg.DagsterEventType) -> list[Any]:
        """Log entries of all runs of some types, in time's order."""
        with self.instance() as instance:
            found = [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
        wanted = [e for e in found if e.dagster_event is not None and e.dagster_event.event_type in types]
        return sorted(wanted, key=lambda entry: entry.timestamp)

    def noted(self, file: str) -> list[dict[str, Any]]:
        """The record of ``steps`` or ``evaluations``."""
        path = self.audit / file
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def evaluated(self) -> list[tuple[str, str]]:
        """(model, task) of everything that was evaluated, in time's order."""
        return [(" ".join(line["model"]), task) for line in self.noted("evaluations") for task in line["tasks"]]

    def stored(self) -> list[str]:
        """The key of every stored evaluation, as often as it is stored."""
        files = sorted((self.data / "evaluations").glob("segment-*.parquet"))
        keys = [key for file in files for key in pl.read_parquet(file)["evaluation_key"].unique().to_list()]
        return sorted(keys)

    def _settings(self, launcher: str) -> dict[str, Any]:
        """The shipped settings, with the default storage, and shorter pauses."""
        settings: dict[str, Any] = yaml.safe_load(_SHIPPED.read_text())
        del settings["storage"]
        settings["run_monitoring"]["poll_interval_seconds"] = 5
        if launcher == "ray":
            names: list[str] = settings["run_launcher"]["config"]["ray"]["env_vars"]
            names += [name for name in self.environment if name.startswith("SIMMERGE_TEST")]
        else:
            del settings["run_launcher"]
            settings["run_monitoring"]["max_resume_run_attempts"] = 0
        return settings


def tables(root: Path, names: Sequence[str]) -> dict[str, tuple[Any, bytes]]:
    """Content by path of every file of some tables: all bytes, and apart from them what is said about them.

    safetensors writes a file's metadata in another order each time, so those are compared as what they say.
    """
    return {
        str(path.relative_to(root)): _header_and_rest(path)
        if path.suffix == ".safetensors"
        else (None, path.read_bytes())
        for name in names
        for path in sorted((root / name).rglob("*"))
        if path.is_file()
    }


def _header_and_rest(path: Path) -> tuple[Any, bytes]:
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]
