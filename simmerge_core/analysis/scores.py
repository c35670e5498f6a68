"""Task scores from raw evaluation rows: the unweighted mean over a task's benchmarks of the mean over seeds (§3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from simmerge_core.catalog import Catalog
from simmerge_core.errors import SelectionError

Standalone = Mapping[tuple[str, str, str], float]
"""Score of an unmerged model by (checkpoint, task, item set)."""


def counted_metrics(catalog: Catalog, *, metric: str | None = None) -> pl.DataFrame:
    """Which metric of each benchmark counts.

    Parameters
    ----------
    metric
        None takes the first metric of each benchmark, which is the one that decides; a name takes that metric on every
        benchmark that declares it.

    Returns
    -------
    pl.DataFrame
        Columns ``task``, ``benchmark``, ``metric``; one row per benchmark that counts.

    Raises
    ------
    SelectionError
        If a task has no benchmark with the metric.
    """
    rows = []
    for task in catalog.tasks:
        chosen = [
            (task.id, benchmark.name, metric if metric is not None else benchmark.metrics[0])
            for benchmark in task.benchmarks
            if metric is None or metric in benchmark.metrics
        ]
        if not chosen:
            raise SelectionError(
                f"Task {task.id!r} has no benchmark with the metric {metric!r}: declare it in the catalog."
            )
        rows += chosen
    return pl.DataFrame(rows, schema={"task": pl.String, "benchmark": pl.String, "metric": pl.String}, orient="row")


def item_sets_of(catalog: Catalog) -> tuple[str, ...]:
    """At most two item sets that every benchmark declares, sorted: one to choose on, one to score on."""
    declared = [set(benchmark.item_sets) for task in catalog.tasks for benchmark in task.benchmarks]
    return tuple(sorted(set.intersection(*declared))[:2])


def task_scores(frame: pl.DataFrame, *, by: Sequence[str], counted: pl.DataFrame) -> pl.DataFrame:
    """Task score per row key and item set (§3.3): mean over seeds, then unweighted mean over the task's benchmarks.

    Parameters
    ----------
    frame
        Rows with the benchmark columns of the data contract and a ``task`` column.
    by
        Columns that, with ``task``, name the model that was scored.
    counted
        As `counted_metrics` returns it.

    Returns
    -------
    pl.DataFrame
        Columns ``task``, `by`, ``item_set``, ``utility`` (float64), sorted by all keys; a key that lacks one of its
        task's benchmarks on an item set is left out there, since a mean over fewer benchmarks is another quantity.
    """
    keys = list(dict.fromkeys(["task", *by]))
    needed = counted.group_by("task").agg(pl.len().alias("needed"))
    return (
        frame.join(counted, on=["task", "benchmark", "metric"], how="inner")
        # Two partitions computed at once may hold the same evaluation twice; a seed counts once.
        .unique([*keys, "item_set", "benchmark", "seed"], keep="first", maintain_order=True)
        .group_by([*keys, "item_set", "benchmark"])
        .agg(pl.col("utility").mean())
        .group_by([*keys, "item_set"])
        .agg(pl.col("utility").mean(), pl.len().alias("found"))
        .join(needed, on="task")
        .filter((pl.col("found") == pl.col("needed")) & pl.col("utility").is_not_null())
        .select(*keys, "item_set", "utility")
        .sort(*keys, "item_set")
    )


def standalone(frame: pl.DataFrame, *, counted: pl.DataFrame) -> Standalone:
    """Task scores of unmerged models from rows of `standalone_scores`."""
    scores = task_scores(frame, by=["checkpoint"], counted=counted)
    return {
        (checkpoint, task, item_set): utility
        for task, checkpoint, item_set, utility in scores.select(
            "task", "checkpoint", "item_set", "utility"
        ).iter_rows()
    }
