"""What the selectors are trained on, as the catalog declares it."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from simmerge_core.catalog import Catalog
from simmerge_core.tables import ACTIVE_LABELS, MERGE_LABELS, PAIRWISE_FEATURES, DataRoot
from simmerge_pipeline.contents import of_present


def deciding_metrics(catalog: Catalog) -> dict[str, str]:
    """The first metric of each benchmark, by the benchmark's name."""
    return {benchmark.name: benchmark.metrics[0] for task in catalog.tasks for benchmark in task.benchmarks}


def item_sets(catalog: Catalog) -> list[str]:
    """At most two item sets that every benchmark has: one to learn from, one to score on."""
    sets = [set(benchmark.item_sets) for task in catalog.tasks for benchmark in task.benchmarks]
    return sorted(set.intersection(*sets))[:2]


def labelled_pairs(root: DataRoot, prints: Mapping[str, str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Features and labels, of the design and of active labelling, from the present content of both checkpoints."""
    features, labels = root.scan(PAIRWISE_FEATURES).collect(), root.scan(MERGE_LABELS).collect()
    beyond = root.scan(ACTIVE_LABELS).collect().with_columns(checkpoint=pl.col("a"))
    labels = pl.concat([labels, beyond.select(labels.columns)])
    for side in ("a", "b"):
        features = of_present(features, side, f"{side}_fingerprint", prints)
        labels = of_present(labels, side, f"{side}_fingerprint", prints)
    return features, labels
