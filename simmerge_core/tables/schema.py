"""What a table is: columns with dtype, unit, range and description, and the check of a frame against them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from simmerge_core.errors import TableError


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name, dtype, description
        As in the Parquet file and the documentation.
    unit
        What a value counts: ``nat``, ``cosine``, ``ratio``, ``1`` (dimensionless), …
    group
        For features: the ablation group (``kl``, ``activation``, ``attention``, ``weight``, …).
    low, high
        Inclusive bounds that every non-null value must keep.
    nullable
        Whether nulls are allowed. NaN is never allowed.
    """

    name: str
    dtype: pl.DataType | type[pl.DataType]
    description: str
    unit: str | None = None
    group: str | None = None
    low: float | None = None
    high: float | None = None
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the data contract: its partition keys (in the path), its columns (in the file), what a row is."""

    name: str
    partition: tuple[str, ...]
    row: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = field(default=())

    @property
    def schema(self) -> Mapping[str, pl.DataType | type[pl.DataType]]:
        """Column names to dtypes, in file order, without the partition keys."""
        return {column.name: column.dtype for column in self.columns}

    def empty(self) -> pl.DataFrame:
        """No rows, with this table's columns."""
        return pl.DataFrame(schema=dict(self.schema))

    def validated(self, frame: pl.DataFrame, *, where: str) -> pl.DataFrame:
        """Return `frame` with exactly this table's columns, in order and dtype.

        Raises
        ------
        TableError
            Naming the table, the place, the column and what is wrong: a missing or unknown column, a null where none
            may be, a NaN, a value outside the column's range, a repeated key.
        """
        missing = [c.name for c in self.columns if c.name not in frame.columns]
        unknown = [c for c in frame.columns if c not in self.schema]
        if missing or unknown:
            raise TableError(
                f"Table {self.name} at {where} has missing columns {missing} and unknown columns {unknown}."
            )
        try:
            frame = frame.select(pl.col(c.name).cast(c.dtype) for c in self.columns)
        except pl.exceptions.PolarsError as error:
            raise TableError(f"Table {self.name} at {where} has a column of another type: {error}.") from error
        for column in self.columns:
            problem = _problem(frame[column.name], column)
            if problem is not None:
                raise TableError(f"Table {self.name} at {where}: column {column.name!r} {problem}.")
        if self.key and frame.select(pl.struct(self.key).is_duplicated().any()).item():
            raise TableError(f"Table {self.name} at {where} repeats a row of key {self.key}.")
        return frame


def _problem(values: pl.Series, column: Column) -> str | None:
    if not column.nullable and values.null_count():
        return f"has {values.null_count()} nulls"
    if not values.dtype.is_numeric():
        return None
    if values.dtype.is_float() and values.is_nan().any():
        return f"has {values.is_nan().sum()} NaNs"
    numbers = values.drop_nulls().to_numpy()
    if column.low is not None and numbers.size and numbers.min() < column.low:
        return f"has the value {numbers.min()}, below its least value {column.low}"
    if column.high is not None and numbers.size and numbers.max() > column.high:
        return f"has the value {numbers.max()}, above its greatest value {column.high}"
    return None
