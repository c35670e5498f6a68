"""Which rows are learned from and which are kept apart: by pair, by checkpoint, by task."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import polars as pl

from simmerge_core.errors import SelectionError
from simmerge_core.selector.rows import pair_ids


def validation_mask(meta: pl.DataFrame, *, share: float = 0.2) -> np.ndarray:
    """(n,) bool: rows of split ``validation``; where there are none, the pairs whose hash falls into `share`."""
    mask = (meta["split"] == "validation").to_numpy()
    if mask.any() and not mask.all():
        return mask
    low, high = meta.select(pl.min_horizontal("a", "b").alias("low"), pl.max_horizontal("a", "b").alias("high"))
    draws = np.array([_fraction(f"validation|{a}|{b}") for a, b in zip(low, high, strict=True)])
    mask = draws < share
    if not mask.any() or mask.all():
        mask = pair_ids(meta) == pair_ids(meta)[np.argmin(draws)]
    return mask


def pair_folds(pairs: np.ndarray, folds: int, *, seed: int) -> np.ndarray:
    """(n,) fold in [0, folds) of each row; all rows of an unordered pair share one.

    Folds differ in size by at most one pair.
    """
    unique, inverse = np.unique(pairs, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(unique))
    return (order % folds)[inverse]


def checkpoint_split(meta: pl.DataFrame, held_out: Collection[str]) -> np.ndarray:
    """(n,) of strings: a split by checkpoint, for whether the selector knows what to do with experts it never saw.

    A pair with any held-out checkpoint is ``test``; of the others, those of split ``test`` become ``train``, since
    nothing of them is scored. A fitted model then has seen no row of a held-out checkpoint.

    Raises
    ------
    SelectionError
        If a held-out checkpoint is in no row, or nothing is left to train on.
    """
    ids = set(meta["a"].to_list()) | set(meta["b"].to_list())
    unknown = sorted(set(held_out) - ids)
    if unknown:
        raise SelectionError(f"The held-out checkpoints {unknown} are in no labelled pair: name others, or label them.")
    test = meta["a"].is_in(list(held_out)) | meta["b"].is_in(list(held_out))
    if test.all():
        raise SelectionError(f"Holding out {sorted(held_out)} leaves no pair to train on: hold out fewer checkpoints.")
    split = pl.when(pl.Series(test)).then(pl.lit("test")).when(pl.col("split") == "test").then(pl.lit("train"))
    return meta.select(split.otherwise(pl.col("split")).alias("split"))["split"].to_numpy().astype(str)


def checkpoint_folds(meta: pl.DataFrame, folds: int) -> list[tuple[str, ...]]:
    """Sets of held-out checkpoints that together cover every checkpoint once, each with all domains where possible.

    Checkpoints are dealt domain by domain in the order of a stable hash of their ids.
    """
    domains = dict(meta.select("a", "a_domain").rows()) | dict(meta.select("b", "b_domain").rows())
    order = sorted(domains, key=lambda c: (domains[c], _fraction(f"fold|{c}"), c))
    if folds < 2 or folds > len(order):
        raise SelectionError(f"{len(order)} checkpoints cannot be dealt into {folds} folds: choose 2 to {len(order)}.")
    return [tuple(sorted(order[fold::folds])) for fold in range(folds)]


def held_out_checkpoints(meta: pl.DataFrame, folds: int, *, least_pairs: int) -> np.ndarray:
    """(F, n) bool: the rows that touch each fold of checkpoints, so that the others know none of them.

    F is `folds`, or half as many as there are checkpoints where that is less; 0 where this leaves fewer than 2 folds or
    any fold leaves fewer than `least_pairs` pairs.
    """
    folds = min(folds, len(set(meta["a"].to_list()) | set(meta["b"].to_list())) // 2)
    none = np.zeros((0, meta.height), dtype=bool)
    if folds < 2:
        return none
    held = [meta["a"].is_in(fold) | meta["b"].is_in(fold) for fold in checkpoint_folds(meta, folds)]
    touched = np.stack([mask.to_numpy() for mask in held])
    pairs = pair_ids(meta)
    return touched if min(len(np.unique(pairs[~mask])) for mask in touched) >= least_pairs else none


def task_split(meta: pl.DataFrame, task: str) -> np.ndarray:
    """(n,) of strings: a split by task; a pair that is labelled on the held-out task leaves the other tasks' rows.

    Rows on the task are ``test``; rows of the same pairs on other tasks are ``unused``, the rest is kept, with
    ``test`` becoming ``train``.

    Raises
    ------
    SelectionError
        If no row is on the task or none remains.
    """
    on_task = (meta["task"] == task).to_numpy()
    if not on_task.any():
        raise SelectionError(
            f"No labelled pair is on task {task!r}: name one of {sorted(set(meta['task'].to_list()))}."
        )
    pairs = pair_ids(meta)
    shared = np.isin(pairs, pairs[on_task]) & ~on_task
    split = meta["split"].to_numpy().astype(object)
    split[split == "test"] = "train"
    split[shared] = "unused"
    split[on_task] = "test"
    if not np.isin(split, ["train", "validation"]).any():
        raise SelectionError(f"Every labelled pair is also labelled on task {task!r}: nothing is left to train on.")
    return split.astype(str)


def _fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
