"""What an experiment leaves: raw rows as Parquet and figures as JSON, kept until what they rest on changes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import polars as pl

from simmerge_core.files import replaced_folder, write_json
from simmerge_core.storage import Location, local_copy

_ROWS, _FIGURES, _STAMP = "rows.parquet", "figures.json", "stamp.json"


@dataclass(frozen=True, slots=True)
class Result:
    """One experiment's outcome.

    Attributes
    ----------
    rows
        The raw rows that every figure can be computed from again: one per choice, plan or fold.
    figures
        JSON-ready summary, floats unrounded; NaN is not allowed, use None.
    """

    rows: pl.DataFrame
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResultStore:
    """Results by experiment, one folder each, that appear complete or not at all."""

    folder: Location

    def read(self, name: str, stamp: str) -> Result | None:
        """The result of an experiment if it rests on exactly what `stamp` stands for, else None."""
        place = self.folder / name
        try:
            if json.loads((place / _STAMP).read_text("utf-8")) != stamp:
                return None
            figures = json.loads((place / _FIGURES).read_text("utf-8"))
            return Result(pl.read_parquet(local_copy(place / _ROWS)), figures)
        except (OSError, ValueError, pl.exceptions.PolarsError):
            return None

    def write(self, name: str, stamp: str, result: Result) -> Location:
        """Put a result in the place of an earlier one."""
        with replaced_folder(self.folder / name, last=_STAMP) as temporary:
            result.rows.write_parquet(temporary / _ROWS, compression="zstd")
            # In their own order, which is that of the tables on the results page.
            text = json.dumps(result.figures, indent=2, allow_nan=False)
            (temporary / _FIGURES).write_text(text + "\n", encoding="utf-8")
            write_json(temporary / _STAMP, stamp)
        return self.folder / name
