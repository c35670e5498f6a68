"""compose.yaml, read as Compose reads it, and its services as processes of this machine.

What differs from containers is the place only: host names are 127.0.0.1, ports are free ones, volumes and the image's
folders are temporary ones. Commands, environment, health checks and the order of starting are the file's own.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster_dockerfile import PROJECT, unpack
from cluster_postgres import free_port
from cluster_processes import Processes

COMPOSE = PROJECT / "docker" / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
_DEADLINE = 240.0
_HOSTS = ("postgres", "code", "ray-head", "0.0.0.0")
_PORTS = ("3000", "4000", "6379", "8265")
_SEVERAL = {"52365"}  # ports that several services have, each in its own container
_IMAGE = ("/opt/simmerge", "/opt/dagster")


@dataclass(frozen=True)
class Service:
    """What is needed of a service to start it and to ask after it."""

    name: str
    command: list[str]
    environment: dict[str, str]
    healthcheck: list[str]
    depends_on: dict[str, str]
    volumes: dict[str, str]


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """Replace ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` in every text below `value`."""

    def found(match: re.Match[str]) -> str:
        name, kind, word = match.groups()
        if given := variables.get(name):
            return given
        if kind == "?":
            raise KeyError(f"{name}: {word}")
        return word or ""

    if isinstance(value, str):
        return _VARIABLE.sub(found, value)
    if isinstance(value, dict):
        return {key: interpolated(entry, variables) for key, entry in value.items()}
    return [interpolated(entry, variables) for entry in value] if isinstance(value, list) else value


def read(variables: Mapping[str, str], file: Path = COMPOSE) -> dict[str, Service]:
    """The services of a compose file, of all profiles."""
    content = interpolated(yaml.safe_load(file.read_text("utf-8")), variables)
    found = {}
    for name, entry in content["services"].items():
        command, check = entry.get("command", []), entry.get("healthcheck", {}).get("test", [])
        assert not check or check[0] == "CMD", f"{name}: only commands without a shell are read here"
        found[name] = Service(
            name,
            shlex.split(command) if isinstance(command, str) else [str(word) for word in command],
            {key: str(word) for key, word in entry.get("environment", {}).items()},
            check[1:],
            {other: how["condition"] for other, how in entry.get("depends_on", {}).items()},
            {target: source for source, _, target in (volume.partition(":") for volume in entry.get("volumes", []))},
        )
    return found


class Deployment:
    """The services of docker/compose.yaml as processes."""

    def __init__(self, processes: Processes, folder: Path, *, postgres_port: int, variables: Mapping[str, str]) -> None:
        self.processes, self.folder = processes, folder
        self.services = read(variables)
        self.ports = {"5432": str(postgres_port), **{port: str(free_port()) for port in _PORTS}}
        self._own = {name: {port: str(free_port()) for port in _SEVERAL} for name in self.services}
        self._images: dict[str, Path] = {}
        # Ray's sockets are in its folder for temporary files, and the path of a socket has at most 107 characters.
        self._temporary = tempfile.TemporaryDirectory(prefix="ray-")

    def close(self) -> None:
        """Kill every service."""
        for name in self.services:
            if name != "postgres" and self.processes.alive(name):
                self.processes.kill(name)
        self._temporary.cleanup()

    def up(self, *names: str) -> None:
        """Start services and what they depend on, each when its conditions hold; wait until they are healthy."""
        for name in names:
            if self.processes.alive(name):
                continue
            for other, condition in self.services[name].depends_on.items():
                if other != "postgres":
                    self.up(other) if condition == "service_healthy" else self.run(other)
            self.start(name)
            self.wait_until_healthy(name)

    def run(self, name: str) -> None:
        """Run a service that ends by itself, and what it depends on: it must end well."""
        self.start(name)
        assert self.processes.wait(name) == 0, self.processes.told(name)

    def start(self, name: str) -> None:
        """Start a service and nothing else."""
        service = self.services[name]
        self.processes.start(
            name,
            [self.translated(name, word) for word in service.command],
            self.environment(name),
            cwd=self.image(name) / "opt/simmerge",
        )

    def wait_until_healthy(self, name: str) -> None:
        """Ask by the service's own health check until it says yes."""
        deadline = time.monotonic() + _DEADLINE
        while not self.healthy(name):
            assert self.processes.alive(name), self.processes.told(name)
            assert time.monotonic() < deadline, self.processes.told(name)
            time.sleep(0.5)

    def healthy(self, name: str) -> bool:
        """The answer of the service's own health check."""
        command = [self.translated(name, word) for word in self.services[name].healthcheck]
        with (self.folder / f"{name}-healthcheck.log").open("ab") as log:
            done = subprocess.run(command, env=self.environment(name), stdout=log, stderr=log, check=False, timeout=60)
        return done.returncode == 0

    def image(self, name: str) -> Path:
        """The root of a service's container: the image's own files, which nobody else sees."""
        if name not in self._images:
            root = self._images[name] = self.folder / "containers" / name
            unpack(root)
            workspace = root / "opt/dagster/workspace.yaml"
            workspace.write_text(self.translated(name, workspace.read_text("utf-8")), "utf-8")
        return self._images[name]

    def environment(self, name: str) -> dict[str, str]:
        """A service's environment: of this process only what is not about SimMerge, Dagster, Ray or Python's path."""
        own = ("SIMMERGE_", "DAGSTER_", "RAY_", "PYTHON", "COV_", "COMPOSE_")
        outside = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        path = f"{Path(os.path.abspath(sys.executable)).parent}{os.pathsep}{outside.get('PATH', '')}"
        given = {key: self.translated(name, value) for key, value in self.services[name].environment.items()}
        image = {"PYTHONPATH": str(self.image(name) / "opt/simmerge"), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        return {**outside, "PATH": path, "RAY_TMPDIR": self._temporary.name, **image, **given}

    def volume(self, source: str) -> Path:
        """The folder that stands for a named volume."""
        place = self.folder / "volumes" / source
        place.mkdir(parents=True, exist_ok=True)
        return place

    def translated(self, name: str, text: str) -> str:
        """Hosts, ports and folders of the container as they are on this machine."""
        if name == "postgres":
            return text
        hosts = "|".join(map(re.escape, _HOSTS))
        text = re.sub(rf"(?<![\w/.@-])({hosts})(?![\w/.-])|(?<=http://)({hosts})", "127.0.0.1", text)
        ports = {**self.ports, **self._own[name]}
        text = re.sub(rf"\b({'|'.join(ports)})\b", lambda match: ports[match[0]], text)
        # Folders last: nothing in a temporary folder's name is a host or a port.
        for target in ("/catalog", "/data", "/var/lib/dagster"):
            source = self.services[name].volumes.get(target)
            # A folder that a service does not mount is not there for it.
            place = self.volume(source) if source else self.folder / "containers" / name / target[1:]
            text = re.sub(rf"(?<![\w/.-]){target}(?![\w-])", str(place), text)
        for target in _IMAGE:
            text = re.sub(rf"(?<![\w/.-]){target}(?![\w-])", str(self.folder / "containers" / name / target[1:]), text)
        return text
