"""What one Dagster instance knows of the assets, told to another: for a move from SQLite to PostgreSQL.

Results lie in the data root and move with it. That a partition is there, and from what it was computed, stands in the
event log: without it everything would count as missing, and be computed again. Runs and their logs stay behind.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dagster as dg

from simmerge_core.errors import SimMergeError
from simmerge_pipeline.event_log import persistent_instance
from simmerge_pipeline.partitions import CHECKPOINT, MERGE_REQUEST, TASK, add_partitions

_PAGE = 1000
# Row numbers of the other event log, which mean other events here.
_POINTERS = "dagster/input_event_pointer/"


def transfer(
    source: dg.DagsterInstance, target: dg.DagsterInstance, *, told: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Copy partitions, and the newest materialization of each partition of each asset, oldest first.

    What the target has already is left alone, so an interrupted call can be repeated.

    Parameters
    ----------
    source, target
        Instances; the source is only read.
    told
        Called with the number of materializations copied and to be copied.

    Returns
    -------
    dict
        Number of materializations copied, by asset.
    """
    for partitions in (CHECKPOINT, TASK, MERGE_REQUEST):
        name = str(partitions.name)
        add_partitions(target, name, source.get_dynamic_partitions(name))
    found: list[tuple[float, dg.AssetMaterialization]] = []
    for key in source.all_asset_keys():
        there = {event.partition for _, event in _newest(target, key)}
        found += [(moment, event) for moment, event in _newest(source, key) if event.partition not in there]
    copied: dict[str, int] = {}
    # In the order in which they happened, since what is newer than its inputs counts as up to date.
    for number, (_, event) in enumerate(sorted(found, key=lambda entry: entry[0]), start=1):
        tags = {name: value for name, value in (event.tags or {}).items() if not name.startswith(_POINTERS)}
        target.report_runless_asset_event(
            dg.AssetMaterialization(
                event.asset_key,
                description=event.description,
                metadata=event.metadata,
                partition=event.partition,
                tags=tags,
            )
        )
        asset = event.asset_key.to_user_string()
        copied[asset] = copied.get(asset, 0) + 1
        if told is not None:
            told(number, len(found))
    return copied


def _newest(instance: dg.DagsterInstance, key: dg.AssetKey) -> Iterator[tuple[float, dg.AssetMaterialization]]:
    """When, and what, of the newest materialization of each partition."""
    seen: set[str | None] = set()
    cursor, more = None, True
    while more:
        page = instance.fetch_materializations(key, limit=_PAGE, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization
            if event is not None and event.partition not in seen:
                seen.add(event.partition)
                yield record.timestamp, event
        cursor, more = page.cursor, page.has_more


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy what the instance of a folder knows into the instance that DAGSTER_HOME names."""
    from rich.console import Console
    from rich.progress import Progress

    parser = argparse.ArgumentParser(prog="python -m simmerge_pipeline.transfer", description=main.__doc__)
    parser.add_argument("home", type=Path, help="the folder that was DAGSTER_HOME, with its history")
    home: Path = parser.parse_args(arguments).home.absolute()
    console = Console(stderr=True)
    try:
        _check(home)
        with (
            persistent_instance(home) as source,
            dg.DagsterInstance.get() as target,
            Progress(console=console) as bar,
        ):
            line = bar.add_task("materializations", total=None)
            copied = transfer(source, target, told=lambda done, of: bar.update(line, completed=done, total=of))
    except SimMergeError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    for asset, number in sorted(copied.items()):
        console.print(f"{asset}: {number}")
    console.print(f"{sum(copied.values())} materializations copied.")
    return 0


def _check(home: Path) -> None:
    if not (home / "history").is_dir():
        raise SimMergeError(f"{home} has no history of Dagster's: name the folder that was DAGSTER_HOME.")
    if not os.access(home / "history", os.W_OK):  # SQLite writes beside a database that it reads
        raise SimMergeError(f"{home} cannot be written: copy it, and give the copy to this user.")
    to = os.environ.get("DAGSTER_HOME")
    if not to or Path(to).absolute() == home:
        raise SimMergeError("DAGSTER_HOME must name the instance to copy to, another one than that to copy from.")


if __name__ == "__main__":
    sys.exit(main())
