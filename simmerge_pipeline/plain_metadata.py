"""Values as people read them on an asset's page: numbers of few digits, lists and tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from simmerge_core.storage import Location

_DIGITS = 4


def rounded(number: float) -> float:
    """A score, probability or number of hours, with four decimals."""
    return round(float(number), _DIGITS)


def bullets(items: Iterable[object], *, none: str = "none") -> dg.MarkdownMetadataValue:
    """One line per item; `none` where there is none."""
    return dg.MetadataValue.md("\n".join(f"- {item}" for item in items) or none)


def files(paths: Iterable[Location]) -> dg.MarkdownMetadataValue:
    """Paths, one per line."""
    return bullets(f"`{path}`" for path in paths)


def facts(values: Mapping[str, object]) -> dg.MarkdownMetadataValue:
    """A table of names and values."""
    return table(("", "value"), [(name, value) for name, value in values.items()])


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """A Markdown table; floats are rounded."""
    lines = [columns, ["---"] * len(columns), *rows]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines))


def _cell(value: Any) -> str:
    text = f"{value:.{_DIGITS}f}" if isinstance(value, float) else "–" if value is None else str(value)
    return text.replace("|", r"\|")
