"""Dagster's services, and Ray's, as processes of this machine that end with the benchmark."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil
import yaml
from orchestration import ROOT, ask

GPU = "gpu_worker"
"""The custom resource that stands for a GPU."""

_STOP = """mutation($id: String!) { stopSensor(id: $id) { __typename ... on PythonError { message } } }"""
_SENSORS = """{ sensorsOrError(
  repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "simmerge"}) {
  ... on Sensors { results { id name } } } }"""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """A program of this environment."""
    return str(Path(sys.executable).with_name(name))


def write_settings(home: Path, *, ray: bool = False) -> None:
    """The shipped dagster.yaml; Ray's with Dagster's own SQLite in place of PostgreSQL."""
    source = ROOT / ("docker/ray/dagster.yaml" if ray else "dagster_home/dagster.yaml")
    content = yaml.safe_load(source.read_text())
    content.pop("storage", None)
    (home / "dagster.yaml").write_text(yaml.safe_dump(content))


def environment(home: Path, catalog: Path, data: Path) -> dict[str, str]:
    """What every service is told, and nothing of ours besides."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SIMMERGE_", "RAY_", "DAGSTER_"))}
    return {
        **own,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "DAGSTER_HOME": str(home),
        "SIMMERGE_CATALOG": str(catalog),
        "SIMMERGE_DATA": str(data),
    }


def now_and_then(seconds: float = 20.0) -> Callable[[str, float], None]:
    """Progress on stderr, every so many seconds."""
    last = [0.0]

    def tell(message: str, fraction: float) -> None:
        if time.monotonic() - last[0] > seconds:
            last[0] = time.monotonic()
            print(f"{fraction:4.0%} {message}", file=sys.stderr)

    return tell


@contextmanager
def dagster_dev(home: Path, given: Mapping[str, str]) -> Iterator[int]:
    """Webserver, daemon and code server, as `simmerge ui` starts them; the webserver's port."""
    port = free_port()
    command = [program("dagster"), "dev", "-w", str(ROOT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
    with (home / "dev.log").open("wb") as log, _process(command, given, log):
        _until_answers(f"http://127.0.0.1:{port}/server_info")
        yield port


def stop_sensors(port: int) -> None:
    """Switch every sensor off, so that nothing happens but what is asked for."""
    for sensor in ask(port, _SENSORS, {})["sensorsOrError"]["results"]:
        ask(port, _STOP, {"id": sensor["id"]})


@contextmanager
def ray_head(folder: Path, given: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A Ray node with what stands for a GPU; what a deployment beside it has in its environment."""
    port, agent = free_port(), free_port()
    command = [program("ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=4"]
    command += ["--node-ip-address=127.0.0.1", f"--port={free_port()}", f"--ray-client-server-port={free_port()}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--resources={json.dumps({GPU: 1})}", f"--temp-dir={folder}", f"--object-store-memory={100 * 2**20}"]
    with (folder / "head.log").open("wb") as log, _process(command, given, log):
        address = f"http://127.0.0.1:{port}"
        _until_answers(f"{address}/api/version")
        yield {"RAY_ADDRESS": address, "SIMMERGE_EXECUTOR": "ray", "SIMMERGE_RAY_GPU_RESOURCE": GPU}


@contextmanager
def _process(command: Sequence[str], given: Mapping[str, str], log: IO[Any]) -> Iterator[None]:
    process = subprocess.Popen(
        command, cwd=ROOT, env=dict(given), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in family:
            try:
                member.terminate()
            except psutil.NoSuchProcess:
                continue
        _, left = psutil.wait_procs(family, timeout=20)
        for member in left:
            member.kill()
        process.wait()


def _until_answers(address: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"{address} does not answer.")
