"""The page that documents the tables, from their definitions: ``python -m simmerge_core.tables.document FILE``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from simmerge_core.files import write_atomically
from simmerge_core.tables.definitions import TABLES
from simmerge_core.tables.schema import Column, Table

_INTRODUCTION = """\
# Tables

Generated from `simmerge_core/tables/definitions.py` by `make docs`; change the definitions, not this page.

Every table lies under the data root (`SIMMERGE_DATA`, default `data/`), Hive-style, one Parquet file per partition:
`<root>/<table>/<key>=<value>/…/part.parquet`. Partition columns are in the path only; Polars and DuckDB add them back
when they read the glob ([queries.md](queries.md) has examples). A table is checked against the definitions below each
time a partition is written: columns, dtypes, bounds, nulls, repeated keys; NaN is never allowed.
"""


def column_rows(table: Table) -> list[dict[str, str]]:
    """One dict per column, partition keys first, with the texts that the page and the command line show."""
    partition = [
        {
            "column": key,
            "type": "String",
            "unit": "",
            "bounds": "",
            "group": "",
            "description": "partition key, in the path",
        }
        for key in table.partition
    ]
    return partition + [
        {
            "column": column.name,
            "type": _dtype(column.dtype) + (", nullable" if column.nullable else ""),
            "unit": column.unit or "",
            "bounds": _bounds(column),
            "group": column.group or "",
            "description": column.description,
        }
        for column in table.columns
    ]


def _dtype(dtype: pl.DataType | type[pl.DataType]) -> str:
    return str(dtype)


def _bounds(column: Column) -> str:
    if column.low is None and column.high is None:
        return ""
    # Bounds of cosines carry rounding room that would only distract on the page.
    low = "" if column.low is None else f"{round(column.low, 6):g}"
    high = "" if column.high is None else f"{round(column.high, 6):g}"
    return f"{low} … {high}".strip()


def page(tables: Iterable[Table]) -> str:
    """The whole page as Markdown."""
    parts = [_INTRODUCTION]
    for table in tables:
        rows = column_rows(table)
        shown = [key for key in rows[0] if any(row[key] for row in rows)]
        parts.append(f"## `{table.name}`\n\nA row is {table.row}. {_keys(table)}\n")
        lines = ["| " + " | ".join(shown) + " |", "|" + " --- |" * len(shown)]
        lines += ["| " + " | ".join(_markdown(key, row[key]) for key in shown) + " |" for row in rows]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _keys(table: Table) -> str:
    partition = "Partitioned by " + ", ".join(f"`{key}`" for key in table.partition) + "."
    if not table.key:
        return partition
    return f"{partition} Within a partition {', '.join(f'`{key}`' for key in table.key)} name one row."


def _markdown(key: str, text: str) -> str:
    text = text.replace("|", "\\|").replace("<", "\\<")
    return f"`{text}`" if key == "column" else text


def write_page(path: Path) -> None:
    """Put the page of every table into the place of `path`."""
    with write_atomically(path) as temporary:
        temporary.write_text(page(TABLES.values()), encoding="utf-8")


if __name__ == "__main__":
    write_page(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/tables.md"))
