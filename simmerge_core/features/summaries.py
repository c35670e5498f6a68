"""The statistics that turn a sequence into a fixed number of features (App. B.4)."""

from __future__ import annotations

import polars as pl


def summaries(column: str, prefix: str) -> list[pl.Expr]:
    """Mean, median and quantiles of a column, named ``<prefix>_<statistic>``.

    A quantile q of n sorted values lies at position q · (n - 1), linearly interpolated between its neighbours; the
    median is the quantile 0.5.
    """
    values = pl.col(column)
    return [
        values.mean().alias(f"{prefix}_mean"),
        values.median().alias(f"{prefix}_median"),
        values.quantile(0.25, interpolation="linear").alias(f"{prefix}_q25"),
        values.quantile(0.75, interpolation="linear").alias(f"{prefix}_q75"),
        values.quantile(0.9, interpolation="linear").alias(f"{prefix}_q90"),
    ]
