"""The checks of the similarity tables, applied to one partition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import polars as pl

from simmerge_core.features.columns import FEATURES
from simmerge_pipeline import checks

_COSINES = [column.name for column in FEATURES if column.unit == "cosine"]
_DIVERGENCES = [column.name for column in FEATURES if column.group == "kl"]
_SUMMARIES = ("mean", "median", "q25", "q75", "q90")


def judge_functional(verdicts: checks.Verdicts, key: str, rows: pl.DataFrame) -> None:
    """Check one partition of `functional_similarity`."""
    cosines, divergences = rows.filter(pl.col("metric").str.ends_with("cosine")), rows.filter(pl.col("metric") == "kl")
    verdicts.add("no_nan", key, checks.nans(rows), examined=rows.height)
    bad = checks.outside(cosines, _SUMMARIES, low=-1.0, high=1.0)
    verdicts.add("cosines_in_range", key, bad, examined=cosines.height)
    bad = checks.outside(divergences, _SUMMARIES, low=0.0, high=None)
    verdicts.add("kl_not_negative", key, bad, examined=divergences.height)


def judge_features(verdicts: checks.Verdicts, key: str, rows: pl.DataFrame) -> None:
    """Check one partition of `pairwise_features`."""
    verdicts.add("no_nan", key, checks.nans(rows), examined=rows.height)
    bad = checks.outside(rows, _COSINES, low=-1.0, high=1.0)
    verdicts.add("cosines_in_range", key, bad, examined=rows.height)
    verdicts.add("kl_not_negative", key, checks.outside(rows, _DIVERGENCES, low=0.0, high=None), examined=rows.height)


def judge_pairs(
    verdicts: checks.Verdicts, keys: Mapping[str, str], present: Iterable[str], held: Set[tuple[str, str]]
) -> None:
    """Check that each checkpoint's pairs with all present ones are held; `keys` are its partitions by checkpoint."""
    others = set(present)
    for checkpoint, key in keys.items():
        missing = checks.missing_pairs(checkpoint, others, held) if checkpoint in others else []
        verdicts.add("pairs_complete", key, missing, examined=max(len(others) - 1, 0))
