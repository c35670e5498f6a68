"""Training rows: the features of each labelled pair, in both orientations, beside its utility under every action."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from simmerge_core.errors import SelectionError
from simmerge_core.features.columns import FEATURES
from simmerge_core.operators.actions import Action, parse_action

META = ("a", "b", "task", "kind", "split", "a_domain", "b_domain")
_PAIR = ("task", "a", "b")
_NOISE = ("item_variance", "items")


@dataclass(frozen=True)
class TrainingRows:
    """n ordered pairs on a task.

    Attributes
    ----------
    features
        n rows of `pairwise_features` with `task`; row i belongs to `utilities[i]`.
    utilities
        (n, actions) float64: the task score (§3.3) of the merge under each action.
    meta
        n rows of a, b, task, kind, split, a_domain, b_domain.
    actions
        The actions, in the order of the columns of `utilities`.
    dropped
        Rows left out, by reason: ``no_features``, ``incomplete`` (not every action labelled).
    item_variance
        (n, actions) float64: variance of a single item's score behind each utility, such that the mean over k items
        per benchmark has `item_variance` / k; NaN where a label has no standard error, None where none has.
    items
        (n, actions) float64: items per benchmark and item set behind each utility; as above.
    """

    features: pl.DataFrame
    utilities: np.ndarray
    meta: pl.DataFrame
    actions: tuple[Action, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    item_variance: np.ndarray | None = None
    items: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.utilities)

    def filter(self, mask: np.ndarray | pl.Series) -> TrainingRows:
        """The rows where `mask` is true."""
        return self.take(np.flatnonzero(np.asarray(mask, dtype=bool)))

    def take(self, index: np.ndarray) -> TrainingRows:
        """The rows at `index` (integers), which may name a row several times."""
        return replace(
            self,
            features=self.features[index],
            utilities=self.utilities[index],
            meta=self.meta[index],
            item_variance=None if self.item_variance is None else self.item_variance[index],
            items=None if self.items is None else self.items[index],
        )

    def of_split(self, *splits: str) -> TrainingRows:
        """The rows of the named splits."""
        return self.filter(self.meta["split"].is_in(list(splits)))

    def with_split(self, split: Sequence[str] | np.ndarray | pl.Series) -> TrainingRows:
        """The same rows under another split, e.g. one by checkpoint (`selector.checkpoint_split`)."""
        column = pl.Series("split", list(split), dtype=pl.String)
        return replace(self, meta=self.meta.with_columns(column))

    def with_actions(self, actions: Sequence[Action | str]) -> TrainingRows:
        """The same rows with a subset of the actions."""
        chosen = tuple(map(parse_action, actions))
        unknown = [str(a) for a in chosen if a not in self.actions]
        if unknown:
            raise SelectionError(f"The rows have no labels for the actions {unknown}: label them first.")
        index = [self.actions.index(a) for a in chosen]
        return replace(
            self,
            utilities=self.utilities[:, index],
            actions=chosen,
            item_variance=None if self.item_variance is None else self.item_variance[:, index],
            items=None if self.items is None else self.items[:, index],
        )

    @property
    def pairs(self) -> np.ndarray:
        """(n,) integer id of each row's unordered pair, the same for both orientations and all tasks."""
        return pair_ids(self.meta)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything a model can learn from: ids, splits, features, utilities, actions; no noise."""
        digest = hashlib.sha256()
        digest.update(json.dumps([str(a) for a in self.actions]).encode())
        digest.update(self.meta.select(META).write_csv().encode())
        names = [c.name for c in FEATURES if c.name in self.features.columns]
        digest.update(json.dumps(names).encode())
        for name in names:
            digest.update(np.ascontiguousarray(self.features[name].to_numpy(), dtype="<f8").tobytes())
        digest.update(np.ascontiguousarray(self.utilities, dtype="<f8").tobytes())
        return digest.hexdigest()


def pair_ids(meta: pl.DataFrame) -> np.ndarray:
    """(n,) integer id per unordered pair {a, b}, numbered in the order of the sorted ids."""
    low = pl.min_horizontal("a", "b")
    high = pl.max_horizontal("a", "b")
    keys = meta.select(pl.struct(low.alias("low"), high.alias("high")).rank("dense").alias("id"))
    return keys["id"].to_numpy().astype(np.int64) - 1


def training_rows(
    features: pl.DataFrame | pl.LazyFrame,
    labels: pl.DataFrame | pl.LazyFrame,
    *,
    actions: Sequence[Action | str],
    metric: str | Mapping[str, str] = "acc,none",
    item_set: str | Sequence[str] = "A",
    blend: float = 0.0,
    blend_metric: str = "probability",
) -> TrainingRows:
    """Join pair features with merge labels; one row per ordered pair and task (§2.3.1).

    A label of o(a, b; α) is also the label of o(b, a; 1 − α), so one merge gives a row in each orientation. A utility
    is the mean over seeds, then over the named item sets, then the unweighted mean over the task's benchmarks (§3.3).

    Parameters
    ----------
    features
        Table `pairwise_features` with its partition column `task`.
    labels
        Table `merge_labels` with its partition column `task`; mirrored rows may be there or not.
    actions
        The columns wanted; pairs that lack one are left out and counted.
    metric
        The metric key that decides, or one per benchmark.
    item_set
        The set(s) of items to learn from; the others stay for scoring.
    blend
        Weight in [0, 1] of `blend_metric` in the utility. The probability of the correct answer is a steadier label
        than exact match, and another metric: mixing them is a choice to state.

    Raises
    ------
    SelectionError
        If no complete row results, or an unordered pair lies in two splits.
    """
    chosen = tuple(map(parse_action, actions))
    if not 0.0 <= blend <= 1.0:
        raise SelectionError(f"The blend weight {blend:g} lies outside [0, 1]: give the share of {blend_metric!r}.")
    table = features.lazy().collect() if isinstance(features, pl.LazyFrame) else features
    raw = labels.lazy().collect() if isinstance(labels, pl.LazyFrame) else labels
    sets = [item_set] if isinstance(item_set, str) else list(item_set)
    scored = _scores(raw, metric=metric, sets=sets, blend=blend, blend_metric=blend_metric)
    wide, incomplete = _pivot(_both_orientations(scored), chosen)
    known = table.unique(subset=_PAIR, keep="any", maintain_order=True)
    names = [str(a) for a in chosen]
    joined = wide.join(known, on=list(_PAIR), how="inner").sort(*_PAIR)
    if joined.is_empty():
        raise SelectionError(
            f"No pair has both features and labels under all of {names} "
            f"for metric {metric!r} on item set {item_set!r}: compute features and label pairs first."
        )
    rows = TrainingRows(
        features=joined.select(*_PAIR, *(c for c in known.columns if c not in _PAIR)),
        utilities=joined.select(names).to_numpy().astype(np.float64),
        meta=joined.select(META),
        actions=chosen,
        dropped={"no_features": wide.height - joined.height, "incomplete": incomplete},
        item_variance=_noise(joined, names, "item_variance"),
        items=_noise(joined, names, "items"),
    )
    _refuse_undefined(rows)
    refuse_leaks(rows.meta)
    return rows


def _refuse_undefined(rows: TrainingRows) -> None:
    """Raise where a label is no number: networks would learn it and say nothing."""
    bad = np.argwhere(~np.isfinite(rows.utilities))
    if len(bad):
        row, column = bad[0].tolist()
        a, b, task = rows.meta.select("a", "b", "task").row(row)
        raise SelectionError(
            f"The label of {a} and {b} under {rows.actions[column]} on task {task} is not a finite number: materialize "
            "merge_labels for this pair again."
        )


def _noise(joined: pl.DataFrame, names: Sequence[str], what: str) -> np.ndarray | None:
    """(n, actions) of one of the columns that `_pivot` names ``<action> <what>``; None where all are unknown."""
    values = joined.select(f"{name} {what}" for name in names).cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return None if np.isnan(values).all() else values


def refuse_leaks(meta: pl.DataFrame) -> None:
    """Raise if an unordered pair lies in two splits: one orientation or task would give away the other.

    Rows of split ``unused`` are read by nobody and do not count.
    """
    used = meta.with_columns(pl.Series("pair", pair_ids(meta))).filter(pl.col("split") != "unused")
    leaked = (
        used.group_by("pair")
        .agg(pl.col("split").n_unique().alias("n"), pl.first("a"), pl.first("b"))
        .filter(pl.col("n") > 1)
        .sort("pair")
    )
    if leaked.height:
        a, b = leaked.select("a", "b").row(0)
        raise SelectionError(
            f"The pair {{{a}, {b}}} lies in more than one split: assign splits by unordered pair, alike on all tasks."
        )


def _scores(
    labels: pl.DataFrame, *, metric: str | Mapping[str, str], sets: list[str], blend: float, blend_metric: str
) -> pl.DataFrame:
    """Task score per (task, a, b, action): seeds, then item sets, then benchmarks, each by the plain mean."""
    deciding = (
        pl.lit(metric)
        if isinstance(metric, str)
        else pl.col("benchmark").replace_strict(dict(metric), default=None, return_dtype=pl.String)
    )
    weight = pl.when(pl.col("metric") == deciding).then(1.0 - blend).otherwise(0.0) + pl.when(
        pl.col("metric") == blend_metric
    ).then(blend).otherwise(0.0)
    told = {"stderr", "n"} <= set(labels.columns)
    part = labels.filter(pl.col("item_set").is_in(sets)).with_columns(
        weight.alias("weight"),
        (pl.col("n") * pl.col("stderr") ** 2 if told else pl.lit(None, pl.Float64)).alias("item_variance"),
        (pl.col("n") if told else pl.lit(None)).cast(pl.Float64).alias("items"),
    )
    part = _canonical(part.filter(pl.col("weight") > 0))
    place = ["task", "a", "b", "action"]
    by_seed = part.group_by(*place, "benchmark", "metric", "item_set").agg(
        pl.mean("utility", *_NOISE),
        pl.first("weight"),
        pl.first("kind"),
        pl.min("split"),
        pl.max("split").alias("split_max"),
    )
    conflict = by_seed.filter(pl.col("split") != pl.col("split_max"))
    if conflict.height:
        a, b = conflict.sort("a", "b").select("a", "b").row(0)
        raise SelectionError(f"The pair {{{a}, {b}}} lies in more than one split: label it again under one split rule.")
    by_benchmark = by_seed.group_by(*place, "benchmark").agg(
        (pl.col("utility") * pl.col("weight")).sum() / len(sets),
        # Of a blend of two metrics the blend of the variances is an upper bound; a single unknown one hides the sum.
        _unless_unknown((pl.col("item_variance") * pl.col("weight")).sum() / len(sets), "item_variance"),
        pl.mean("items"),
        pl.col("weight").sum() / len(sets),
        pl.first("kind"),
        pl.first("split"),
    )
    # A benchmark whose metric or item set is missing has less than the full weight and would bias the mean.
    by_benchmark = by_benchmark.filter((pl.col("weight") - 1.0).abs() < 1e-9)
    by_task = by_benchmark.group_by(*place).agg(
        pl.mean("utility"),
        # The mean over m benchmarks of k items each has the variance Σ vᵢ / (m² k).
        _unless_unknown(pl.col("item_variance").mean() / pl.len(), "item_variance"),
        pl.mean("items"),
        pl.len().alias("benchmarks"),
        pl.first("kind"),
        pl.first("split"),
    )
    return by_task.filter(pl.col("benchmarks") == pl.col("benchmarks").max().over("task")).drop("benchmarks")


def _unless_unknown(value: pl.Expr, column: str) -> pl.Expr:
    return pl.when(pl.col(column).null_count() == 0).then(value).alias(column)


def _mirror_names(actions: pl.Series) -> dict[str, str]:
    return {text: str(parse_action(text).mirrored()) for text in actions.unique().to_list()}


def _canonical(labels: pl.DataFrame) -> pl.DataFrame:
    """Each merge once, with the smaller id first; action texts in their normal form."""
    normal = {text: str(parse_action(text)) for text in labels["action"].unique().to_list()}
    mirror = _mirror_names(pl.Series(list(normal.values()), dtype=pl.String))
    text = pl.col("action").replace_strict(normal, return_dtype=pl.String)
    swapped = pl.col("a") > pl.col("b")
    once = labels.with_columns(
        pl.min_horizontal("a", "b").alias("a"),
        pl.max_horizontal("a", "b").alias("b"),
        pl.when(swapped).then(text.replace_strict(mirror, return_dtype=pl.String)).otherwise(text).alias("action"),
    )
    key = ["task", "a", "b", "action", "benchmark", "metric", "item_set", "seed"]
    return once.sort(*key, "utility").unique(subset=key, keep="first", maintain_order=True)


def _both_orientations(scores: pl.DataFrame) -> pl.DataFrame:
    mirror = _mirror_names(scores["action"])
    turned = scores.with_columns(
        pl.col("b").alias("a"),
        pl.col("a").alias("b"),
        pl.col("action").replace_strict(mirror, return_dtype=pl.String, default=None).alias("action"),
    )
    return pl.concat([scores, turned.select(scores.columns)])


def _pivot(scores: pl.DataFrame, actions: tuple[Action, ...]) -> tuple[pl.DataFrame, int]:
    names = [str(a) for a in actions]
    key = [*_PAIR, "kind", "split"]
    wide = scores.group_by(key).agg(
        pl.col(value).filter(pl.col("action") == name).first().alias(alias)
        for name in names
        for value, alias in (("utility", name), *((noise, f"{name} {noise}") for noise in _NOISE))
    )
    complete = wide.drop_nulls(names)
    return complete.sort(*_PAIR), wide.height - complete.height
