"""Tables of the data contract as Dagster metadata: column schemas, row counts, places."""

from __future__ import annotations

from typing import Any

import dagster as dg
import polars as pl

from simmerge_core.storage import Location, size_of
from simmerge_core.tables import Table


def table_schema(table: Table) -> dg.TableSchema:
    """Columns of a table, partition keys first, with dtype, description, unit and bounds."""
    keys = [dg.TableColumn(key, "String", description="partition key, in the path") for key in table.partition]
    return dg.TableSchema(
        columns=[
            *keys,
            *(
                dg.TableColumn(
                    column.name,
                    str(pl.Schema({column.name: column.dtype})[column.name]),
                    description=column.description + (f" [{column.unit}]" if column.unit else ""),
                    constraints=dg.TableColumnConstraints(
                        nullable=column.nullable,
                        other=[
                            *([f">= {column.low:g}"] if column.low is not None else []),
                            *([f"<= {column.high:g}"] if column.high is not None else []),
                        ],
                    ),
                )
                for column in table.columns
            ),
        ]
    )


def definition_metadata(table: Table) -> dict[str, Any]:
    """Metadata of an asset whose partitions are files of `table`."""
    return {
        "dagster/column_schema": table_schema(table),
        "dagster/table_name": table.name,
        "a row is": table.row,
        "columns": len(table.columns) + len(table.partition),
    }


def written_metadata(table: Table, frame: pl.DataFrame, path: Location) -> dict[str, Any]:
    """Metadata of one partition that was written."""
    rows = "dagster/partition_row_count" if table.partition else "dagster/row_count"
    return {rows: frame.height, "bytes": size_of(path), "dagster/uri": path.as_uri()}
