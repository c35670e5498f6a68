"""Dagster's code server, webserver and daemon on one instance, as three processes of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import yaml
from cluster_graphql import Interface, wait_for
from cluster_postgres import free_port
from cluster_processes import Processes

_ROOT = Path(__file__).parents[2]
_PROGRAMS = Path(sys.executable).parent


class Servers:
    """What `simmerge ui` starts, one by one: the daemon comes when a test says so."""

    def __init__(self, processes: Processes, *, home: Path, catalog: Path, data: Path) -> None:
        self.processes, self._home = processes, home
        self._code, self.port = free_port(), free_port()
        self._workspace = home / "workspace.yaml"
        grpc = {"host": "127.0.0.1", "port": self._code, "location_name": "simmerge"}
        self._workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": grpc}]}))
        own = {k: v for k, v in os.environ.items() if not k.startswith(("SIMMERGE_", "DAGSTER_"))}
        self._environment = {
            **own,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "SIMMERGE_WORKERS"), "1"),
            "PATH": os.pathsep.join((str(_PROGRAMS), own.get("PATH", ""))),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), own.get("PYTHONPATH")))),
            "DAGSTER_HOME": str(home),
            "SIMMERGE_CATALOG": str(catalog),
            "SIMMERGE_DATA": str(data),
        }
        self.interface = Interface(str(self.port))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the code server and the webserver, and wait until the latter shows what the former holds."""
        self._start("code", "dagster", "api", "grpc", "--module-name", "simmerge_pipeline.definitions",
                    "--location-name", "simmerge", "--host", "127.0.0.1", "--port", str(self._code))  # fmt: skip
        wait_for(self._code_answers, bool, self.logs)
        self._start("webserver", "dagster-webserver", "-w", str(self._workspace), "-h", "127.0.0.1",
                    "-p", str(self.port))  # fmt: skip
        wait_for(self._web_answers, bool, self.logs)

    def start_daemon(self) -> None:
        """Start what ticks sensors and launches queued runs."""
        self._start("daemon", "dagster-daemon", "run", "-w", str(self._workspace))

    def logs(self) -> str:
        """The end of every server's log."""
        names = [file.stem for file in sorted(self.processes.logs.glob("*.log"))]
        return "\n".join(f"--- {name}\n{self.processes.told(name)}" for name in names)

    def _start(self, name: str, program: str, *arguments: str) -> None:
        self.processes.start(name, [str(_PROGRAMS / program), *arguments], self._environment, cwd=self._home)

    def _code_answers(self) -> bool:
        import socket

        assert self.processes.alive("code"), self.logs()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._code)) == 0

    def _web_answers(self) -> bool:
        assert self.processes.alive("webserver"), self.logs()
        try:
            return self.interface.answers()
        except OSError:
            return False
