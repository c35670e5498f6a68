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
from dagster._core.storage.legacy_storage import CompositeStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy.pool import StaticPool

from simmerge_core.errors import SimMergeError

BATCH = 200
"""Events per transaction."""

_BATCH_SIZE = "DAGSTER_EVENT_BATCH_SIZE"  # read by Dagster whenever it stores an event
_HOME = "DAGSTER_HOME"
_BUSY_SECONDS = 60
_KEPT = 8  # connections; the UI and the daemon look into as many databases as there are runs


class BatchedSqliteEventLog(SqliteEventLogStorage):
    """`SqliteEventLogStorage` with lasting connections and batches that are written at once."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        # By database, with the number of its file; the one used last is last.
        self._engines: dict[str, tuple[sqlalchemy.Engine, int]] = {}
        self._known_tables: set[str] = set()
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
            base_dir = _default_folder(Path(os.environ[_HOME]).expanduser())
        return cls(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sqlalchemy.Connection]:
        with self._db_lock, self._engine(shard).connect() as connection, connection.begin():
            yield connection

    def _engine(self, shard: str) -> sqlalchemy.Engine:
        """The engine of a database, with a connection that lasts; the lock is held."""
        engine, file = self._engines.pop(shard, (None, 0))
        if engine is not None and file != self._file(shard):  # removed meanwhile: what is written would be lost
            engine.dispose()
            self._initialized_dbs.discard(shard)
            engine = None
        if engine is None:
            self._close_oldest()
            engine = sqlalchemy.create_engine(
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
        self._engines[shard] = engine, self._file(shard)
        return engine

    def _file(self, shard: str) -> int:
        try:
            return os.stat(self.path_for_shard(shard)).st_ino
        except FileNotFoundError:
            return 0

    def store_event_batch(self, events: Sequence[Any]) -> None:
        """Write materializations (done or planned) of one run in one transaction per database; others one by one."""
        batched = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED}
        one_by_one = [event for event in events if event.dagster_event_type not in batched]
        events = [event for event in events if event.dagster_event_type in batched]
        if len({event.run_id for event in events}) > 1:
            one_by_one, events = [*events, *one_by_one], []
        if events:
            self._store_at_once(events)
        if one_by_one:  # the checks that a run has planned, which are few
            super().store_event_batch(one_by_one)

    def _store_at_once(self, events: Sequence[Any]) -> None:
        # Should the second transaction fail, Dagster stores all of them again: events twice in the run's log, as with
        # its own class, which has two transactions an event.
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
        """Whether the index database has a table; asked for every batch, and none is ever taken away."""
        if table_name not in self._known_tables and super().has_table(table_name):
            self._known_tables.add(table_name)
        return table_name in self._known_tables

    def _close_oldest(self) -> None:
        runs = [shard for shard in self._engines if shard != INDEX_SHARD_NAME]
        for shard in runs[: max(0, len(runs) + 1 - _KEPT)]:
            self._engines.pop(shard)[0].dispose()

    def dispose(self) -> None:
        """Close every connection."""
        super().dispose()  # ends what watches the files, and would open another one
        with self._db_lock:
            for engine, _ in self._engines.values():
                engine.dispose()
            self._engines.clear()


_SQLITE = (SqliteEventLogStorage.__name__, BatchedSqliteEventLog.__name__)


def _default_folder(home: Path) -> str:
    """Where Dagster's own event log is at `home`."""
    default = InstanceRef.config_defaults(str(home))["event_log_storage"]
    assert default is not None
    return str(default.config_dict["base_dir"])


def _in_batches(ref: InstanceRef, home: Path | None = None) -> InstanceRef:
    """The same instance with the batched event log in the same place, if what it has is SQLite; else as it is."""
    log, runs, schedules = ref.event_storage_data, ref.run_storage_data, ref.schedule_storage_data
    if log is None or runs is None or schedules is None or log.class_name not in _SQLITE:
        return ref
    folder = log.config_dict.get("base_dir") or (_default_folder(home) if home is not None else None)
    config = yaml.safe_dump({"base_dir": folder} if folder is not None else {})
    batched = ConfigurableClassData(BatchedSqliteEventLog.__module__, BatchedSqliteEventLog.__name__, config)
    parts = {"run_storage": runs, "event_log_storage": batched, "schedule_storage": schedules}
    whole = {
        name: {"module_name": part.module_name, "class_name": part.class_name, "config_yaml": part.config_yaml}
        for name, part in parts.items()
    }
    storage = ConfigurableClassData(CompositeStorage.__module__, CompositeStorage.__name__, yaml.safe_dump(whole))
    return ref._replace(storage_data=storage, event_storage_data=batched)


def _refuse_unreadable(file: Path) -> None:
    """Raise SimMergeError in a sentence where Dagster would end in an assertion; no file at all is the default."""
    if not file.is_file():
        return
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise SimMergeError(f"Dagster's {file} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(found, Mapping):
        raise SimMergeError(f"Dagster's {file} is not a mapping: correct it, or delete it to have the default.")


@contextmanager
def persistent_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance at `home`, with the batched event log if its event log is SQLite.

    Raises
    ------
    SimMergeError
        If its dagster.yaml cannot be read.
    """
    home.mkdir(parents=True, exist_ok=True)
    _refuse_unreadable(home / "dagster.yaml")
    with _opened(_in_batches(InstanceRef.from_dir(str(home)), home)) as instance:
        yield instance


@contextmanager
def written_in_batches(instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """The same instance with the batched event log, if what it has is Dagster's own SQLite; else as it is."""
    if type(instance.event_log_storage) is not SqliteEventLogStorage:
        yield instance
        return
    with _opened(_in_batches(instance.get_ref())) as batched:
        yield batched


@contextmanager
def _opened(ref: InstanceRef) -> Iterator[dg.DagsterInstance]:
    before = os.environ.get(_BATCH_SIZE)
    os.environ[_BATCH_SIZE] = str(BATCH)
    try:
        with dg.DagsterInstance.from_ref(ref) as instance:
            yield instance
    finally:
        if before is None:
            os.environ.pop(_BATCH_SIZE, None)
        else:
            os.environ[_BATCH_SIZE] = before
