"""The SQLite event log, written in batches.

Dagster's own class opens a connection and builds an engine for every query, and writes a batch event by event, with
several commits each: most of the time of a run over many partitions, and of launching it. This one keeps its
connections and writes a batch in two transactions. What is on disk is the same, and Dagster's class may read and write
it at the same time. `dagster_home/dagster.yaml` names this one.
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
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from sqlalchemy.pool import StaticPool

from simmerge_core.errors import SimMergeError

BATCH = 200
"""Events per transaction."""

_BATCH_SIZE = "DAGSTER_EVENT_BATCH_SIZE"  # read by Dagster whenever it stores an event
_HOME = "DAGSTER_HOME"
_BUSY_SECONDS = 60
_KEPT = 8  # connections; the UI and the daemon look into as many databases as there are runs
_STORAGE_KEYS = {"storage", "run_storage", "event_log_storage", "schedule_storage"}


class BatchedSqliteEventLog(SqliteEventLogStorage):
    """`SqliteEventLogStorage` with lasting connections and batches that are written at once."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._engines: dict[str, sqlalchemy.Engine] = {}  # the one used last comes last
        super().__init__(base_dir, inst_data)
        os.environ.setdefault(_BATCH_SIZE, str(BATCH))  # for the processes too that this one starts

    @classmethod
    def config_type(cls) -> Any:
        """The folder of the databases; if not given, where Dagster's own class has them in DAGSTER_HOME.

        dagster.yaml cannot say "beside this file": an instance of another folder is opened by `persistent_instance`.
        """
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> BatchedSqliteEventLog:
        """Build from the configuration of an instance."""
        base_dir = config_value.get("base_dir")
        if base_dir is None:
            if not os.environ.get(_HOME):
                raise SimMergeError(f"The event log has no folder: set {_HOME}, or base_dir in dagster.yaml.")
            base_dir = _default(Path(os.environ[_HOME]))["base_dir"]
        return cls(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sqlalchemy.Connection]:
        with self._db_lock:
            engine = self._engines.pop(shard, None)
            if engine is not None:
                self._engines[shard] = engine
            else:
                self._close_oldest()
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

    def _close_oldest(self) -> None:
        runs = [shard for shard in self._engines if shard != INDEX_SHARD_NAME]
        for shard in runs[: max(0, len(runs) + 1 - _KEPT)]:
            self._engines.pop(shard).dispose()

    def wipe(self) -> None:
        """Remove all events; a connection would go on with the files that were removed."""
        self._close_all()
        super().wipe()

    def dispose(self) -> None:
        """Close every connection."""
        self._close_all()
        super().dispose()

    def _close_all(self) -> None:
        with self._db_lock:
            for engine in self._engines.values():
                engine.dispose()
            self._engines.clear()


def _default(home: Path) -> Mapping[str, Any]:
    """What Dagster's own event log is configured with at `home`."""
    default = InstanceRef.config_defaults(str(home))["event_log_storage"]
    assert default is not None
    return default.config_dict


_OURS = {"module": BatchedSqliteEventLog.__module__, "class": BatchedSqliteEventLog.__name__}
"""As an entry of dagster.yaml."""


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
    """The instance at `home`, with the batched event log if `home` names that or has the default storage."""
    home.mkdir(parents=True, exist_ok=True)
    file = home / "dagster.yaml"
    settings = _settings(file)
    overrides: dict[str, Any] = {}
    if not settings.keys() & _STORAGE_KEYS or settings.get("event_log_storage") == _OURS:
        overrides["event_log_storage"] = {**_OURS, "config": _default(home)}  # also where DAGSTER_HOME is another
    before = os.environ.get(_BATCH_SIZE)
    os.environ[_BATCH_SIZE] = str(BATCH)
    try:
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=overrides)) as instance:
            yield instance
    finally:
        if before is None:
            os.environ.pop(_BATCH_SIZE, None)
        else:
            os.environ[_BATCH_SIZE] = before


@contextmanager
def written_in_batches(instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """The same instance with the batched event log, if what it has is Dagster's own SQLite; else as it is."""
    if type(instance.event_log_storage) is not SqliteEventLogStorage:
        yield instance
        return
    with persistent_instance(Path(instance.root_directory)) as batched:
        yield batched
