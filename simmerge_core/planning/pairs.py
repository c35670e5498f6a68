"""The pairwise similarity table as arrays: entry (i, j) holds the features of the ordered pair of two checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from simmerge_core.errors import SelectionError

_NAMED = 5  # missing pairs that an error spells out


@dataclass(frozen=True, slots=True)
class PairTable:
    """Features of every ordered pair of N checkpoints on each of T tasks.

    Attributes
    ----------
    checkpoints
        N ids, sorted.
    domains
        N domains.
    tasks
        T target tasks.
    feature_names
        f columns.
    x
        (T, N, N, f) float64; x[t, i, j] are the features of (checkpoints[i], checkpoints[j]) on tasks[t]; NaN at i = j.
    """

    checkpoints: tuple[str, ...]
    domains: tuple[str, ...]
    tasks: tuple[str, ...]
    feature_names: tuple[str, ...]
    x: np.ndarray

    def index(self, checkpoint: str) -> int:
        """Position of an id."""
        return self.checkpoints.index(checkpoint)


def pair_table(
    features: pl.DataFrame, *, checkpoints: Sequence[str], tasks: Sequence[str], feature_names: Sequence[str]
) -> PairTable:
    """Arrange the features of all ordered pairs of a pool.

    Parameters
    ----------
    features
        Table `pairwise_features` with its `task` column; may hold more pairs and tasks than are wanted.
    feature_names
        The columns that the model reads.

    Raises
    ------
    SelectionError
        If a checkpoint is unknown, given twice, or a pair's features on a task are missing; names them.
    """
    ids = tuple(sorted(checkpoints))
    repeated = sorted({c for c in ids if ids.count(c) > 1})
    if repeated:
        raise SelectionError(f"The checkpoints {repeated} are given twice: name each once.")
    missing = [n for n in ("a", "b", "task", "a_domain", "b_domain", *feature_names) if n not in features.columns]
    if missing:
        raise SelectionError(f"The features lack the columns {missing}, which the selector reads: compute them again.")
    part = features.filter(pl.col("a").is_in(ids) & pl.col("b").is_in(ids) & pl.col("task").is_in(list(tasks))).unique(
        subset=["a", "b", "task"], keep="any", maintain_order=True
    )
    known = set(features["a"].unique().to_list()) | set(features["b"].unique().to_list())
    unknown = [c for c in ids if c not in known]
    if unknown:
        raise SelectionError(
            f"The checkpoints {unknown} have no pairwise features: check the ids against the catalog and "
            "compute their features first."
        )
    computed = set(features["task"].unique().to_list())
    absent = [t for t in tasks if t not in computed]
    if absent:
        raise SelectionError(
            f"There are no pairwise features on the tasks {absent}: name one of {sorted(computed)}, "
            "or compute the features of these first."
        )
    at = {c: i for i, c in enumerate(ids)}
    t_at = {t: i for i, t in enumerate(tasks)}
    x = np.full((len(tasks), len(ids), len(ids), len(feature_names)), np.nan)
    rows = part["a"].replace_strict(at, return_dtype=pl.Int64).to_numpy() if part.height else np.zeros(0, np.int64)
    columns = part["b"].replace_strict(at, return_dtype=pl.Int64).to_numpy() if part.height else rows
    layers = part["task"].replace_strict(t_at, return_dtype=pl.Int64).to_numpy() if part.height else rows
    for f, name in enumerate(feature_names):
        x[layers, rows, columns, f] = part[name].cast(pl.Float64).to_numpy()
    _refuse_gaps(x, layers, rows, columns, ids, tuple(tasks), tuple(feature_names))
    domains = dict(features.filter(pl.col("a").is_in(ids)).select("a", "a_domain").unique().rows()) | dict(
        features.filter(pl.col("b").is_in(ids)).select("b", "b_domain").unique().rows()
    )
    return PairTable(ids, tuple(domains[c] for c in ids), tuple(tasks), tuple(feature_names), x)


def _refuse_gaps(
    x: np.ndarray,
    layers: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    ids: tuple[str, ...],
    tasks: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    there = np.zeros(x.shape[:3], dtype=bool)
    there[layers, rows, columns] = True
    there |= np.eye(len(ids), dtype=bool)
    gaps = np.argwhere(~there)
    if len(gaps):
        listed = ", ".join(f"({ids[i]}, {ids[j]}) on {tasks[t]}" for t, i, j in gaps[:_NAMED])
        more = f" and {len(gaps) - _NAMED} more" if len(gaps) > _NAMED else ""
        raise SelectionError(f"Pairwise features are missing for {listed}{more}: materialize pairwise_features first.")
    bad = np.argwhere(~np.isfinite(x) & ~np.eye(len(ids), dtype=bool)[None, :, :, None])
    if len(bad):
        t, i, j, f = bad[0]
        raise SelectionError(
            f"Feature {names[f]!r} of the pair ({ids[i]}, {ids[j]}) on task {tasks[t]} is not a finite number: "
            "compute the pair's features again."
        )
