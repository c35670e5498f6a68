"""docs/tables.md is what the definitions say."""

from __future__ import annotations

from pathlib import Path

from simmerge_core.tables import TABLES
from simmerge_core.tables.document import column_rows, page, write_page

DOCS = Path(__file__).parents[2] / "docs"


def test_page_is_up_to_date() -> None:
    assert (DOCS / "tables.md").read_text("utf-8") == page(TABLES.values()), "run `make docs`"


def test_every_column_is_described(tmp_path: Path) -> None:
    write_page(tmp_path / "tables.md")
    text = (tmp_path / "tables.md").read_text("utf-8")
    for table in TABLES.values():
        rows = column_rows(table)
        assert [row["column"] for row in rows] == [*table.partition, *table.schema]
        assert all(row["description"] and f"`{row['column']}`" in text for row in rows)
