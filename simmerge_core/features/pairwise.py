"""One row of features per ordered pair on a task (App. B.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from simmerge_core.errors import TableError
from simmerge_core.features.columns import FEATURE_VERSION, FEATURES, STATISTICS
from simmerge_core.features.structure import structural_features
from simmerge_core.features.summaries import summaries
from simmerge_core.similarity.weights import pair_products

_SELF = ("probe_nll", "probe_entropy", "last_entropy")
_COSINES = ("activation_cosine", "attention_cosine")


def pairwise_features(
    functional: pl.DataFrame,
    gram: pl.DataFrame,
    *,
    manifests: pl.DataFrame,
    pairs: Sequence[tuple[str, str]],
    probe_key: str,
    base: str | None = None,
) -> pl.DataFrame:
    """Features of both orientations of each pair on one task.

    KL features are statistics over prompts; cosines are first averaged over prompts (App. B.2), then summarised over
    layers (and heads); weight features follow from inner products. Quantiles interpolate linearly between order
    statistics.

    Parameters
    ----------
    functional
        Rows of table ``functional_similarity`` of one task, self signals included, from any number of partitions.
    gram
        Rows of table ``weight_gram`` with column ``checkpoint``, likewise.
    manifests
        Rows of table ``checkpoints`` with column ``checkpoint``.
    pairs
        Unordered pairs of checkpoint ids.
    probe_key
        Key of the probe set that `functional` was computed on.
    base
        Id of the base; found in `gram` when None.

    Returns
    -------
    Columns of table ``pairwise_features`` without its partition columns; rows (a, b) and (b, a) for each pair, in
    order. No value is null or NaN.

    Raises
    ------
    TableError
        Naming the pair or checkpoint whose rows are missing, or were computed from another content, or several tasks.
    """
    unordered = list(dict.fromkeys(pairs))
    ordered = list(dict.fromkeys(p for a, b in unordered for p in ((a, b), (b, a))))
    if not ordered:
        return pl.DataFrame(schema=_SCHEMA)
    if "task" in functional.columns and functional["task"].n_unique() > 1:
        raise TableError("The functional similarities are of several tasks: give those of one task at a time.")
    names = list(dict.fromkeys(name for pair in unordered for name in pair))
    content = _manifest_of(manifests, names)
    involved = pl.col("a").is_in(names) & pl.col("b").is_in(names)
    functional = functional.filter(involved).unique(
        ["a", "b", "metric", "layer", "head"], keep="last", maintain_order=True
    )
    _check_content(functional, ("a", "b"), content, "functional_similarity")
    _check_content(gram, ("checkpoint", "other"), content, "weight_gram")
    rows = pl.DataFrame(ordered, schema={"a": pl.String, "b": pl.String}, orient="row")
    for part in (_divergences(functional), *(_cosines(functional, metric) for metric in _COSINES)):
        rows = _joined(rows, part, ["a", "b"])
    for side in ("a", "b"):
        rows = _joined(rows, _self_signals(functional, side), [side])
        rows = _joined(
            rows,
            content.rename({"checkpoint": side, "domain": f"{side}_domain", "fingerprint": f"{side}_fingerprint"}),
            [side],
        )
    rows = _joined(rows, structural_features(pair_products(gram, ordered, base=base)), ["a", "b"])
    _check_complete(rows)
    return rows.with_columns(
        probe_key=pl.lit(probe_key), feature_version=pl.lit(FEATURE_VERSION, dtype=pl.Int64)
    ).select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())


_SCHEMA: Mapping[str, pl.DataType | type[pl.DataType]] = {
    **dict.fromkeys(("a", "b", "a_domain", "b_domain", "a_fingerprint", "b_fingerprint", "probe_key"), pl.String),
    "feature_version": pl.Int64,
    **{column.name: column.dtype for column in FEATURES},
}


def _manifest_of(manifests: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    content = manifests.filter(pl.col("checkpoint").is_in(names)).select("checkpoint", "domain", "fingerprint")
    content = content.unique("checkpoint", keep="last", maintain_order=True)
    missing = sorted(set(names) - set(content["checkpoint"]))
    if missing:
        raise TableError(f"Checkpoint {missing[0]!r} has no manifest: materialize checkpoints for it first.")
    return content


def _check_content(frame: pl.DataFrame, sides: tuple[str, str], content: pl.DataFrame, table: str) -> None:
    """Refuse rows that were computed from other weights than the manifest's; an empty fingerprint says nothing."""
    for side in sides:
        seen = frame.select(pl.col(side).alias("checkpoint"), pl.col(f"{side}_fingerprint").alias("seen")).unique()
        stale = seen.join(content, on="checkpoint").filter(
            (pl.col("seen") != "") & (pl.col("seen") != pl.col("fingerprint"))
        )
        if not stale.is_empty():
            raise TableError(
                f"Table {table} has rows of checkpoint {stale['checkpoint'][0]!r} from content "
                f"{stale['seen'][0][:12]}, but its manifest says {stale['fingerprint'][0][:12]}: materialize it again."
            )


def _check_complete(rows: pl.DataFrame) -> None:
    """Refuse a feature that is null or NaN, which only damaged rows can cause."""
    names = [column.name for column in FEATURES]
    sound = rows.select(pl.col(names).is_finite().fill_null(False))
    if sound.select(pl.all_horizontal(pl.all().all())).item():
        return
    name = next(name for name in names if not sound[name].all())
    row = sound[name].arg_min() or 0  # the first False
    raise TableError(
        f"Feature {name!r} of {rows['a'][row]!r} and {rows['b'][row]!r} is not a finite number: a stored similarity of "
        "them is damaged; materialize functional_similarity and weight_gram again."
    )


def _joined(rows: pl.DataFrame, part: pl.DataFrame, on: list[str]) -> pl.DataFrame:
    """Left join that names the first pair or checkpoint that has no match."""
    joined = rows.join(part, on=on, how="left", maintain_order="left")
    lacking = next(name for name in part.columns if name not in on)
    if joined[lacking].null_count():
        missing = joined.filter(pl.col(lacking).is_null())
        named = " and ".join(repr(missing[key][0]) for key in on)
        raise TableError(
            f"There is no {lacking} for {named} in the functional similarities: materialize functional_similarity for "
            "the newer checkpoint."
        )
    return joined


def _divergences(functional: pl.DataFrame) -> pl.DataFrame:
    kl = functional.lazy().filter(pl.col("metric") == "kl")
    forward = kl.select("a", "b", *(pl.col(s).alias(f"kl_ab_{s}") for s in STATISTICS))
    backward = kl.select(
        pl.col("b").alias("a"), pl.col("a").alias("b"), *(pl.col(s).alias(f"kl_ba_{s}") for s in STATISTICS)
    )
    return forward.join(backward, on=["a", "b"], maintain_order="left").collect()


def _cosines(functional: pl.DataFrame, metric: str) -> pl.DataFrame:
    rows = functional.lazy().filter(pl.col("metric") == metric).select("a", "b", "layer", "head", "mean")
    both = pl.concat([rows, rows.select(pl.col("b").alias("a"), pl.col("a").alias("b"), "layer", "head", "mean")])
    return (
        both.unique(["a", "b", "layer", "head"], keep="first", maintain_order=True)
        .group_by("a", "b", maintain_order=True)
        .agg(summaries("mean", metric))
        .collect()
    )


def _self_signals(functional: pl.DataFrame, side: str) -> pl.DataFrame:
    """Mean over prompts of the three signals; checkpoints that lack one are left out."""
    own = functional.lazy().filter(pl.col("a") == pl.col("b"))
    values = [pl.col("mean").filter(pl.col("metric") == metric).first().alias(f"{metric}_{side}") for metric in _SELF]
    return own.group_by(pl.col("a").alias(side), maintain_order=True).agg(values).drop_nulls().collect()
