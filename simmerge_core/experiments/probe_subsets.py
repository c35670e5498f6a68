"""Pairwise features from fewer probes: the caches hold every prompt, so nothing is run again."""

from __future__ import annotations

import polars as pl

from simmerge_core.errors import ProbeError, TableError
from simmerge_core.experiments.data import ExperimentData
from simmerge_core.files import hash_json
from simmerge_core.probes import cached
from simmerge_core.tables import CHECKPOINTS, WEIGHT_GRAM


def features_of_first(data: ExperimentData, count: int) -> pl.DataFrame | None:
    """The table `pairwise_features` that probe sets of the first `count` prompts would have given, same pairs.

    None where a task has no more prompts than that.

    Raises
    ------
    TableError
        If the probe records or inner products of a checkpoint are not there.
    """
    from simmerge_core.features import pairwise_features
    from simmerge_core.similarity import functional_many, self_signals

    gram = data.root.scan(WEIGHT_GRAM).collect()
    manifests = data.root.scan(CHECKPOINTS).collect()
    frames = []
    for task in data.catalog.task_ids:
        known = data.features.filter(pl.col("task") == task)
        pairs = known.filter(pl.col("a") < pl.col("b")).select("a", "b").rows()
        names = sorted({name for pair in pairs for name in pair})
        try:
            whole = {c: cached(data.root, c, task, fingerprint=data.fingerprints[c]) for c in names}
        except ProbeError as error:
            raise TableError(f"The probe-set curve needs every probe record: {error}") from error
        if any(record.prompts <= count for record in whole.values()):
            return None
        records = {c: record.first(count) for c, record in whole.items()}
        functional = pl.concat(
            [functional_many(records, pairs), *(self_signals(r, checkpoint=c) for c, r in records.items())]
        )
        rows = pairwise_features(
            functional,
            gram,
            manifests=manifests,
            pairs=pairs,
            probe_key=hash_json({"of": known["probe_key"][0], "first": count}),
            base=data.catalog.base.id,
        )
        frames.append(rows.with_columns(pl.lit(task).alias("task")))
    return pl.concat(frames)
