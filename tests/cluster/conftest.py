"""What the tests of a deployment share: a PostgreSQL server, processes that end with them, and times."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import cluster_postgres
import pytest
from cluster_postgres import PostgresServer
from cluster_processes import Processes

# Ray reads these once a process, when it is first imported, which modules of other tests do while they are collected.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _missing() -> str | None:
    if sys.platform != "linux":
        return "the services of a cluster are started and ended by way of Linux's /proc"
    if importlib.util.find_spec("dagster_postgres") is None:
        return "dagster-postgres is not installed: pip install -e '.[postgres]'"
    if cluster_postgres.programs() is None:
        return "PostgreSQL's initdb and postgres are not installed: apt-get install postgresql"
    return None


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Processes that end with the session."""
    found = Processes(tmp_path_factory.mktemp("logs"))
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A PostgreSQL server without databases; each test makes its own."""
    if (reason := _missing()) is not None:
        pytest.skip(reason)
    programs = cluster_postgres.programs()
    assert programs is not None
    server = PostgresServer(request.getfixturevalue("processes"), programs)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def timed() -> Iterator[dict[str, dict[str, float]]]:
    """Seconds by name and by fault; into the JSON file that SIMMERGE_CLUSTER_TIMES names, and printed."""
    seconds: dict[str, dict[str, float]] = {}
    yield seconds
    told = json.dumps(seconds, indent=2)
    print(f"\n{told}")
    if file := os.environ.get("SIMMERGE_CLUSTER_TIMES"):
        Path(file).write_text(told + "\n")
