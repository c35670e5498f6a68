"""What predictions got wrong, merge by merge: of single predictions, and of the differences between two."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from simmerge_core.selector.rows import TrainingRows, pair_ids

DIFFERENCES = ("same_pair", "shared_checkpoint", "no_shared_checkpoint")
"""What two predictions on one task have in common: what they share of their errors cancels in the difference."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of n predictions.

    Attributes
    ----------
    error
        (n,) label minus prediction, in units of the metric.
    spread
        (n,) the ensemble's standard deviation of what was predicted.
    weight
        (n,) > 0; they add up to the number of errors that have no merge in common.
    rows
        (n, r) index of the rows that were predicted: r = 1, or 2 for a difference between two of them; empty for errors
        that are not of rows.
    """

    error: np.ndarray
    spread: np.ndarray
    weight: np.ndarray
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 1), dtype=np.int64))


def prediction_errors(rows: TrainingRows, predicted: np.ndarray, members: np.ndarray) -> list[Errors]:
    """Errors under each action, and last those under the chosen action of each row, all (n,).

    Parameters
    ----------
    predicted
        (n, actions) predictions of the rows.
    members
        (members, n, actions) those of the single networks.
    """
    error, spread, weight = rows.utilities - predicted, members.std(axis=0), merge_weights(rows.meta)
    each, chosen = np.arange(len(rows)), predicted.argmax(axis=1)
    at = each[:, None]
    columns = [Errors(e, s, weight, at) for e, s in zip(error.T, spread.T, strict=True)]
    return [*columns, Errors(error[each, chosen], spread[each, chosen], weight, at)]


def difference_errors(
    rows: TrainingRows, predicted: np.ndarray, members: np.ndarray, groups: np.ndarray
) -> dict[str, Errors]:
    """Errors of differences by kind (`DIFFERENCES`); a kind without any is left out.

    Parameters
    ----------
    groups
        (n,) integers: differences between two pairs are taken within a group, on one task. A merge may be in several.

    Returns
    -------
    dict
        ``same_pair``: the chosen against every other action of a merge; else the chosen actions of two merges. All
        couples count, with the weight of as many couples as have no merge in common.
    """
    shown = _as_plans_show_them(rows.meta, groups)
    error, members = (rows.utilities - predicted)[shown], members[:, shown]
    each, chosen = np.arange(len(shown)), predicted[shown].argmax(axis=1)
    mine, ours = error[each, chosen], members[:, each, chosen]  # (m,), (members, m)
    others = error.shape[1] - 1
    other = np.arange(others + 1) != chosen[:, None]  # (m, actions)
    found = {
        "same_pair": Errors(
            (mine[:, None] - error)[other],
            (ours[:, :, None] - members).std(axis=0)[other],
            # Each merge counts once, however many groups it is in.
            np.repeat(merge_weights(rows.meta[shown]), others) / others,
            np.repeat(shown, others)[:, None],
        )
    }
    meta = rows.meta[shown]
    merges = merge_ids(meta)
    ids = np.unique(np.concatenate([meta["a"].to_numpy(), meta["b"].to_numpy()]).astype(str), return_inverse=True)[1]
    a, b = ids[: len(shown)], ids[len(shown) :]
    couples = _couples(_joint_ids(groups[shown], meta["task"].to_numpy().astype(str)))
    i, j = couples[:, 0], couples[:, 1]
    shares = (a[i] == a[j]) | (a[i] == b[j]) | (b[i] == a[j]) | (b[i] == b[j])
    for kind, keep in (("shared_checkpoint", shares), ("no_shared_checkpoint", ~shares)):
        left, right = i[keep], j[keep]
        apart = len(np.unique(merges[couples[keep]])) // 2  # couples that have no merge in common
        if apart:
            found[kind] = Errors(
                mine[left] - mine[right],
                (ours[:, left] - ours[:, right]).std(axis=0),
                np.full(len(left), apart / len(left)),
                shown[couples[keep]],
            )
    return found


def merge_weights(meta: pl.DataFrame) -> np.ndarray:
    """(n,) weights that add up to 1 over the rows of one unordered pair on one task: both orientations, one merge."""
    merge = merge_ids(meta)
    return np.asarray(1.0 / np.bincount(merge)[merge])


def merge_ids(meta: pl.DataFrame) -> np.ndarray:
    """(n,) integer id of each row's unordered pair and task."""
    return _joint_ids(pair_ids(meta), meta["task"].to_numpy().astype(str))


def _joint_ids(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) integer id of each combination of two columns."""
    one, two = (np.unique(column, return_inverse=True)[1] for column in (first, second))
    return np.unique(one * (int(two.max(initial=0)) + 1) + two, return_inverse=True)[1]


def _couples(groups: np.ndarray) -> np.ndarray:
    """(c, 2) indices of all couples of rows within a group."""
    parts = [np.zeros((0, 2), dtype=np.int64)]
    for group in np.unique(groups):
        inside = np.flatnonzero(groups == group)
        parts.append(np.stack([inside[side] for side in np.triu_indices(len(inside), k=1)], axis=1))
    return np.concatenate(parts)


def _as_plans_show_them(meta: pl.DataFrame, groups: np.ndarray) -> np.ndarray:
    """Index of one row per merge and group, in the orientation of plans: the expert first, else the smaller id."""
    each = _joint_ids(merge_ids(meta), groups)
    expert_first = (pl.col("a_domain") == pl.col("task")) & (pl.col("b_domain") != pl.col("task"))
    frame = meta.select(
        pl.Series("merge", each), ~expert_first.alias("turned"), "a", pl.int_range(pl.len()).alias("row")
    )
    first = frame.sort("merge", "turned", "a").unique("merge", keep="first", maintain_order=True)
    return np.sort(first["row"].to_numpy())
