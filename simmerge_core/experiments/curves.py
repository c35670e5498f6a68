"""How much is enough: training pairs, probe prompts, and which metric to learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis.protocol import Direction
from simmerge_core.analysis.scores import counted_metrics
from simmerge_core.analysis.units import Units
from simmerge_core.experiments.data import ExperimentData, Progress, part_of
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.probe_subsets import features_of_first
from simmerge_core.experiments.result import Result
from simmerge_core.experiments.variants import Variant, compare_variants
from simmerge_core.selector import TrainingRows

BLENDS = {"half exact match, half probability": 0.5, "probability of the answer": 1.0}
"""Weight of the probability of the correct answer in the training label; the default learns from exact match."""


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """Paper's actions, pair split."""
    data = catalogs.full
    units = data.units("paper", "expert_task")
    figures: dict[str, Any] = {}
    frames = []
    for number, (name, found) in enumerate(
        (
            ("training_size", training_sizes(data, units)),
            ("probe_size", probe_sizes(data, units)),
            ("labels", label_metrics(data, units)),
        )
    ):
        figures[name], raw = compare_variants(data, units, found, part_of(progress, name, number, 4))
        frames.append(raw.with_columns(pl.lit(name).alias("curve")))
    figures["training_size"]["training_pairs"] = training_pairs(data, units)
    figures["probe_size"]["prompts"] = min(task.probe_settings.count for task in data.catalog.tasks)
    # The same selectors judged by the other metric: whether the steadier label also points at other winners.
    other = replace(data, counted=counted_metrics(data.catalog, metric="probability"))
    judged = other.units("paper", "expert_task")
    em = Variant("exact match", rows={d: data.rows(units.actions, d) for d in data.along})
    figures["labels_judged_by_probability"], raw = compare_variants(
        data, judged, [em, *label_metrics(data, units)], part_of(progress, "probability", 3, 4)
    )
    frames.append(raw.with_columns(pl.lit("labels_judged_by_probability").alias("curve")))
    return Result(pl.concat(frames), figures)


def training_pairs(data: ExperimentData, units: Units) -> int:
    """Pairs that the default learns from: an expert with an auxiliary, on the expert's task."""
    meta = data.rows(units.actions, data.along[0]).of_split("train", "validation").meta
    return meta.filter(pl.col("a_domain") == pl.col("task")).height


def training_sizes(data: ExperimentData, units: Units) -> list[Variant]:
    """Subsets of the training pairs, nested, several draws each; a pair counts once per task that it has an expert of.

    Rows of auxiliary-auxiliary labels go with their pair.
    """
    own = {d: data.rows(units.actions, d) for d in data.along}
    there = training_pairs(data, units)
    found = []
    for size in data.protocol.training_sizes:
        if size > there:
            continue
        draws = 1 if size == there else data.protocol.training_draws
        for draw in range(draws):
            found.append(Variant(f"{size} pairs, draw {draw + 1}", rows=_subsets(own, size, draw)))
    return found


def _subsets(rows: Mapping[Direction, TrainingRows], size: int, draw: int) -> dict[Direction, TrainingRows]:
    found = {}
    for direction, all_rows in rows.items():
        known = all_rows.of_split("train", "validation")
        meta = known.meta.with_columns(
            pl.min_horizontal("a", "b").alias("low"), pl.max_horizontal("a", "b").alias("high")
        )
        pairs = meta.filter(pl.col("a_domain") == pl.col("task")).group_by("low", "high").agg(pl.len().alias("count"))
        order = [(_position(low, high, draw), low, high, n) for low, high, n in pairs.iter_rows()]
        chosen, total = set(), 0
        for _, low, high, count in sorted(order):
            if total >= size:
                break
            chosen.add((low, high))
            total += count
        keep = np.array([pair in chosen for pair in meta.select("low", "high").iter_rows()])
        found[direction] = known.filter(keep)
    return found


def _position(low: str, high: str, draw: int) -> str:
    return hashlib.sha256(f"size|{draw}|{low}|{high}".encode()).hexdigest()


def probe_sizes(data: ExperimentData, units: Units) -> list[Variant]:
    """Behaviour measured on the first prompts of each probe set only; weights are the same."""
    found = []
    for count in data.protocol.probe_sizes:
        if count >= min(task.probe_settings.count for task in data.catalog.tasks):
            continue  # the default
        features = features_of_first(data, count)
        if features is None:
            continue
        fewer = replace(data, features=features)
        rows = {d: fewer.rows(units.actions, d) for d in data.along}
        found.append(Variant(f"{count} prompts", rows=rows, features=features))
    return found


def label_metrics(data: ExperimentData, units: Units) -> list[Variant]:
    """Other labels to learn from."""
    return [
        Variant(name, rows={d: data.rows(units.actions, d, blend=blend) for d in data.along})
        for name, blend in BLENDS.items()
    ]
