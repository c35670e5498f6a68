"""``simmerge tables``: the tables of the data contract and their columns."""

from __future__ import annotations

from typing import Annotated

import typer

from simmerge_cli.options import DEFAULT_DATA, DataFolder, Json
from simmerge_cli.output import print_json, print_table
from simmerge_core.errors import TableError

EPILOG = "\b\nExample:\n  simmerge tables\n  simmerge tables merge_labels"


def run(
    name: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="Show the columns of this table.")] = None,
    data: DataFolder = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List the result tables, or the columns of one."""
    from simmerge_core.tables import TABLES, DataRoot

    if name is None:
        root = DataRoot(data)
        listed = [
            {
                "table": table.name,
                "partition": list(table.partition),
                "partitions": len(root.partitions(table)),
                "row": table.row,
                "glob": str(data / table.name / "**" / "*.parquet"),
            }
            for table in TABLES.values()
        ]
        if json:
            print_json(listed)
        else:
            rows = [(t["table"], t["partition"], t["partitions"], t["row"]) for t in listed]
            print_table(("table", "partitioned by", "partitions", "a row is"), rows)
        return
    if name not in TABLES:
        raise TableError(f"There is no table {name!r}: the tables are {', '.join(TABLES)}.")
    from simmerge_core.tables.document import column_rows

    columns = column_rows(TABLES[name])
    if json:
        print_json(columns)
    else:
        print_table(tuple(columns[0]), [tuple(row.values()) for row in columns], title=TABLES[name].row)
