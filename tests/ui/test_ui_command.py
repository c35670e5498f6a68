"""`simmerge ui` itself: what it says, and that Ctrl-C ends it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_graphql import Interface, wait_for
from cluster_postgres import free_port
from cluster_processes import Processes

pytestmark = [
    pytest.mark.ui,
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="the servers are ended by way of Linux's /proc"),
]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Processes that end with the test."""
    found = Processes(tmp_path / "logs")
    try:
        yield found
    finally:
        found.close()


def test_it_says_no_more_than_it_must_and_ends_with_an_interrupt(processes: Processes, tmp_path: Path) -> None:
    port, home = free_port(), tmp_path / "dagster"
    interface = Interface(str(port))
    command = [
        sys.executable,
        "-m",
        "simmerge_cli",
        "ui",
        "--port",
        str(port),
        "--catalog",
        str(tmp_path / "none.yaml"),
    ]
    own = {k: v for k, v in os.environ.items() if not k.startswith(("SIMMERGE_", "DAGSTER_"))}
    environment = {**own, "PYTHONPATH": str(Path(__file__).parents[2])}
    # As a shell starts what it puts into the background.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = processes.start(
            "ui", [*command, "--data", str(tmp_path / "data"), "--dagster-home", str(home)], environment
        )
    finally:
        signal.signal(signal.SIGINT, before)

    def answers() -> bool:
        assert processes.alive("ui"), processes.told("ui")
        try:
            return interface.answers()
        except OSError:
            return False

    wait_for(answers, bool, lambda: processes.told("ui"))
    process.send_signal(signal.SIGINT)
    processes.wait("ui")
    told = processes.told("ui", 100_000)
    assert f"The Dagster UI opens at http://127.0.0.1:{port}" in told
    assert "superseded" not in told
    assert "Dagster services shut down." in told
