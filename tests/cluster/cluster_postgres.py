"""A PostgreSQL server of one's own: in a temporary folder, on a free port of this machine, never as root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from cluster_processes import Processes

USER, PASSWORD = "dagster", "only-for-this-test"
_DEADLINE = 240.0
_NAME = "postgres"


def programs() -> Path | None:
    """The folder of PostgreSQL's server programs; Debian does not have it on the PATH."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if all((f / name).is_file() for name in ("initdb", "postgres"))), None)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """A server with an empty cluster of databases."""

    def __init__(self, processes: Processes, folder_of_programs: Path) -> None:
        self._processes, self._programs = processes, folder_of_programs
        self.port = free_port()
        # Not below pytest's folder, which only its own user may enter.
        self._folder = Path(tempfile.mkdtemp(prefix="simmerge-postgres-"))
        self._as: dict[str, Any] = {"cwd": self._folder}
        if os.geteuid() == 0:  # the server refuses to run as root
            other = next(entry for entry in pwd.getpwall() if entry.pw_name in ("postgres", "nobody"))
            os.chown(self._folder, other.pw_uid, other.pw_gid)
            self._as |= {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
        password = self._folder / "password"
        password.write_text(PASSWORD)
        options = ["--no-locale", "--encoding=UTF8", "--auth=scram-sha-256", "--no-sync", f"--username={USER}"]
        subprocess.run(
            [self._programs / "initdb", *options, f"--pwfile={password}", self._folder / "data"],
            check=True,
            capture_output=True,
            **self._as,
        )

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        # Without fsync: the folder lives no longer than the test.
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", "fsync=off", "max_connections=100"]
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-k", str(self._folder)]
        command += [part for setting in settings for part in ("-c", setting)]
        self._processes.start(_NAME, command, dict(os.environ), **self._as)
        deadline = time.monotonic() + _DEADLINE
        while not self._answers():
            assert self._processes.alive(_NAME), self._processes.told(_NAME)
            assert time.monotonic() < deadline, self._processes.told(_NAME)
            time.sleep(0.1)

    def kill(self) -> None:
        """End the server without warning, with every connection."""
        self._processes.kill(_NAME)
        # Its children notice by themselves, and until then the folder is theirs.
        deadline = time.monotonic() + _DEADLINE
        while self._answers() and time.monotonic() < deadline:
            time.sleep(0.1)

    def create_database(self, name: str) -> None:
        """Make an empty database, in the place of one that is there."""
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name}")

    def close(self) -> None:
        """End the server and remove its folder."""
        if self._processes.alive(_NAME):
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def settings(self, database: str) -> dict[str, str]:
        """The environment of a Dagster service that uses a database of this server."""
        return {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(self.port),
            "DAGSTER_PG_DB": database,
            "DAGSTER_PG_USER": USER,
            "DAGSTER_PG_PASSWORD": PASSWORD,
        }

    def _connection(self) -> Any:
        import psycopg2

        found = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres", connect_timeout=5
        )
        found.autocommit = True
        return closing(found)  # psycopg2's own context would end a transaction, not the connection

    def _answers(self) -> bool:
        import psycopg2

        try:
            with self._connection() as connection, connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True
