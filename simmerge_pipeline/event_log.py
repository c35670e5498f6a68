"""The SQLite event log, written in batches by one process.

Dagster's own class opens a connection and builds an engine for every query, and writes a batch event by event, with
several commits each: most of the time of a run over many partitions. This one keeps its connections and writes a batch
in two transactions. What is on disk is the same: the UI and the daemon read it with the class they have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy
import yaml

# Dagster has no public interface for storages; the version is pinned below the next minor one.
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from sqlalchemy.pool import StaticPool

from simmerge_core.errors import SimMergeError

BATCH = 200
"""Events per transaction."""

_BUSY_SECONDS = 60
_STORAGE_KEYS = {"storage", "run_storage", "event_log_storage", "schedule_storage"}


class BatchedSqliteEventLog(SqliteEventLogStorage):
    """`SqliteEventLogStorage` with lasting connections and batches that are written at once."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._engines: dict[str, sqlalchemy.Engine] = {}
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> BatchedSqliteEventLog:
        """Build from the configuration of an instance."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sqlalchemy.Connection]:
        with self._db_lock:
            engine = self._engines.get(shard)
            if engine is None:
                engine = self._engines[shard] = sqlalchemy.create_engine(
                    self.conn_string_for_shard(shard),
                    poolclass=StaticPool,  # one connection, which the lock gives to one thread at a time
                    connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
                )
                if shard not in self._initialized_dbs:
                    self._initdb(engine)
                    self._initialized_dbs.add(shard)
                with engine.connect() as connection:
                    # With a write-ahead log this survives a killed process; a power cut may take the last events.
                    connection.execute(sqlalchemy.text("PRAGMA synchronous=NORMAL"))
                    connection.commit()
            with engine.connect() as connection, connection.begin():
                yield connection

    def store_event_batch(self, events: Sequence[Any]) -> None:
        """Write materializations (done or planned) of one run in one transaction per database; others one by one."""
        kinds = {event.dagster_event_type for event in events}
        batched = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED}
        if not kinds <= batched or len({event.run_id for event in events}) != 1:
            super().store_event_batch(events)
            return
        inserts = [self.prepare_insert_event(event) for event in events]
        with self.run_connection(events[0].run_id) as connection:
            for insert in inserts:
                connection.execute(insert)
        with self.index_transaction() as connection:
            ids = [int(connection.execute(insert).inserted_primary_key[0]) for insert in inserts]  # type: ignore[index]
            self._store_asset_event_tags(connection, events, ids)
            # The table of assets keeps the newest event of each kind only.
            newest = {
                (e.dagster_event_type, e.dagster_event.asset_key): (e, i) for e, i in zip(events, ids, strict=True)
            }
            for event, event_id in newest.values():
                self._store_asset_event(connection, event, event_id)

    def has_table(self, table_name: str) -> bool:
        """Whether the index database has a table; asked for every batch, and never changing."""
        known: dict[str, bool] = self.__dict__.setdefault("_known_tables", {})
        if table_name not in known:
            known[table_name] = super().has_table(table_name)
        return known[table_name]

    def dispose(self) -> None:
        """Close every connection."""
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()
        SqlEventLogStorage.dispose(self)


def _settings(file: Path) -> Mapping[str, Any]:
    """The top-level entries of an instance's configuration; none where there is no file."""
    if not file.is_file():
        return {}
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise SimMergeError(f"Dagster's {file} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(found, Mapping):
        raise SimMergeError(f"Dagster's {file} is not a mapping: correct it, or delete it to have the default.")
    return found


@contextmanager
def persistent_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance at `home`, with the batched event log if `home` has the default storage."""
    home.mkdir(parents=True, exist_ok=True)
    file = home / "dagster.yaml"
    settings = _settings(file)
    overrides: dict[str, Any] = {}
    if not _STORAGE_KEYS & settings.keys():
        default = InstanceRef.config_defaults(str(home))["event_log_storage"]
        assert default is not None
        overrides["event_log_storage"] = {
            "module": BatchedSqliteEventLog.__module__,
            "class": BatchedSqliteEventLog.__name__,
            "config": default.config_dict,
        }
    before = os.environ.get("DAGSTER_EVENT_BATCH_SIZE")
    os.environ["DAGSTER_EVENT_BATCH_SIZE"] = str(BATCH)
    try:
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=overrides)) as instance:
            yield instance
    finally:
        if before is None:
            del os.environ["DAGSTER_EVENT_BATCH_SIZE"]
        else:
            os.environ["DAGSTER_EVENT_BATCH_SIZE"] = before


@contextmanager
def written_in_batches(instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """The same instance with the batched event log, if what it has is Dagster's own SQLite; else as it is."""
    if type(instance.event_log_storage) is not SqliteEventLogStorage:
        yield instance
        return
    with persistent_instance(Path(instance.root_directory)) as batched:
        yield batched
