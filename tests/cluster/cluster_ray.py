"""A Ray cluster of two nodes on this machine: a head, and a worker that has what stands for a GPU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

GPU_WORKER = "gpu_worker"
_HOST = "127.0.0.1"
_OBJECT_STORE = str(100 * 2**20)
_TRIES = 8  # a node gives itself 30 seconds to start, which a busy machine does not


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on just now."""
    with_ports = [socket.socket() for _ in range(count)]
    try:
        for opened in with_ports:
            opened.bind((_HOST, 0))
        return [int(opened.getsockname()[1]) for opened in with_ports]
    finally:
        for opened in with_ports:
            opened.close()


def until(condition: Callable[[], Any], what: str, *, seconds: float = 240.0, every: float = 0.2) -> Any:
    """What `condition` gives as soon as that is true; a test that waits for ever says nothing."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"Waited {seconds:.0f} s in vain for {what}.")
        time.sleep(every)


def kill_tree(process: psutil.Process) -> None:
    """Kill a process and everything that it started, at once, as a power cut would."""
    family = [process, *process.children(recursive=True)]
    for member in family:
        try:
            member.suspend()  # else a child that is still alive reports, or starts again, what is dead already
        except psutil.NoSuchProcess:
            continue
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=20)


@dataclass
class Node:
    """One node: its name, which its steps find as CLUSTER_NODE, and the process that holds it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class RayCluster:
    """A head and one GPU worker, which may be killed and started again under another name."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._gcs, self._http = free_ports(2)
        self.address = f"http://{_HOST}:{self._http}"
        self.environment = {
            **environment,
            # A token, as every cluster should have one: what is sent to it is executed.
            **{name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")},
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_agent_register_timeout_ms": "300000",
        }
        self.nodes: list[Node] = []
        self._started = 0

    def start(self) -> None:
        """Start both nodes and wait until they are ready to take jobs."""
        self._start(
            "head",
            "--head",
            f"--port={self._gcs}",
            "--include-dashboard=true",
            f"--dashboard-host={_HOST}",
            f"--dashboard-port={self._http}",
            f"--ray-client-server-port={free_ports(1)[0]}",
            f"--temp-dir={self.folder / 'ray'}",
        )
        until(self._answers, f"the head's job server ({self.nodes[0].log})")
        self.start_worker()

    def start_worker(self) -> Node:
        """Start a GPU worker."""
        self._started += 1
        return self._start(
            f"worker-{self._started}",
            f"--address={_HOST}:{self._gcs}",
            f"--resources={json.dumps({GPU_WORKER: 1})}",
        )

    @property
    def worker(self) -> Node:
        """The newest worker."""
        return self.nodes[-1]

    def kill_worker(self) -> None:
        """Kill the worker with all its steps."""
        kill_tree(psutil.Process(self.worker.process.pid))
        self.worker.process.wait()

    def stop(self) -> None:
        """Stop everything."""
        for node in reversed(self.nodes):
            if node.process.poll() is None:
                kill_tree(psutil.Process(node.process.pid))
                node.process.wait()

    def jobs(self) -> list[Any]:
        """What Ray knows of all jobs."""
        from ray.job_submission import JobSubmissionClient

        return list(JobSubmissionClient(self.address).list_jobs())

    def _answers(self) -> bool:
        try:
            self.jobs()
        except (ConnectionError, RuntimeError):
            return False
        return True

    def _start(self, name: str, *options: str) -> Node:
        """Start a node and wait until it belongs to the cluster."""
        for _ in range(_TRIES):
            node = self._launched(name, *options)
            self.nodes.append(node)

            def settled(node: Node = node) -> bool:
                return "Ray runtime started" in node.log.read_text() or node.process.poll() is not None

            until(settled, f"node {name} to start ({node.log})")
            if node.process.poll() is None:
                return node
            self.nodes.pop()
        raise AssertionError(f"Node {name} did not start: {node.log.read_text()[-2000:]}")

    def _launched(self, name: str, *options: str) -> Node:
        agent, metrics = free_ports(2)
        log = self.folder / f"{name}.log"
        command = [
            str(Path(sys.executable).with_name("ray")),
            "start",
            "--block",
            f"--node-ip-address={_HOST}",
            "--num-cpus=2",
            f"--object-store-memory={_OBJECT_STORE}",
            f"--dashboard-agent-listen-port={agent}",
            f"--metrics-export-port={metrics}",
            *options,
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self.environment, "CLUSTER_NODE": name},
                start_new_session=True,
            )
        return Node(name, process, log)
