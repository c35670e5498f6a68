"""Structural similarity: cosine, distance and norms of parameters from the Gram matrix (App. B.3)."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from simmerge_core.errors import TableError
from simmerge_core.similarity.geometry import Geometry


def structural(gram: pl.DataFrame, pairs: Sequence[tuple[str, str]], *, base: str | None = None) -> pl.DataFrame:
    """Weight metrics of pairs, global, per layer and per module kind (App. B.3).

    Parameters
    ----------
    gram
        Rows of table ``weight_gram`` with column ``checkpoint``, of any number of partitions.
    pairs
        Ordered pairs; the Gram matrix may hold either orientation.
    base
        Id of the base; found as the one checkpoint that only has a row with itself when None.

    Returns
    -------
    Columns a, b, metric, scope, value (float64). Scope is ``global``, ``layer.<n>`` or ``module.<kind>``; metric is
    cosine, l2, norm_a, norm_b, norm_base, task_vector_cosine, task_vector_norm_a or task_vector_norm_b. A cosine with a
    zero vector is 0, of two zero vectors 1.

    Raises
    ------
    TableError
        Naming a pair whose products, or a checkpoint whose own products, are missing.
    """
    products = pair_products(gram, pairs, base=base)
    g = Geometry(products)
    metrics = {
        "cosine": g.cosine,
        "l2": g.l2,
        "norm_a": g.norm_a,
        "norm_b": g.norm_b,
        "norm_base": g.norm_base,
        "task_vector_cosine": g.task_cosine,
        "task_vector_norm_a": g.task_norm_a,
        "task_vector_norm_b": g.task_norm_b,
    }
    return (
        products.select("a", "b", "scope")
        .with_columns(pl.Series(name, values) for name, values in metrics.items())
        .unpivot(index=["a", "b", "scope"], variable_name="metric", value_name="value")
        .select("a", "b", "metric", "scope", "value")
    )


def pair_products(gram: pl.DataFrame, pairs: Sequence[tuple[str, str]], *, base: str | None = None) -> pl.DataFrame:
    """Sum the Gram matrix over tensors into the products that `similarity.geometry` works on.

    Returns
    -------
    One row per pair and scope, in the order of `pairs`: a, b, scope, ``size`` (coordinates), ``aa``, ``bb``, ``ab``,
    ``ao``, ``bo``, ``oo`` (see `similarity.geometry`), ``sign_agreement``, ``sign_conflict`` (coordinates). Parameters
    and errors as of `structural`.
    """
    base = base or _base_of(gram)
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    gram = gram.filter(pl.col("checkpoint").is_in([*names, base]) & pl.col("other").is_in([*names, base]))
    gram = gram.unique(["checkpoint", "other", "tensor"], keep="last", maintain_order=True)
    sums = _sums(gram)
    seen = set(sums.select("a", "b").unique().iter_rows())
    _require(seen, [(name, name) for name in [*names, base]], "with itself")
    _require(seen, [(name, base) for name in names], f"with the base {base!r}")
    _require(seen | {(b, a) for a, b in seen}, list(pairs), "with each other")
    wanted = pl.DataFrame(list(dict.fromkeys(pairs)), schema={"a": pl.String, "b": pl.String}, orient="row").lazy()
    known = sums.lazy()
    own = known.filter(pl.col("a") == pl.col("b")).select("a", "scope", own="dot")
    each = known.filter(pl.col("b") == base).select("a", "scope", with_base="dot").join(own, on=["a", "scope"])
    turned = known.select(pl.col("b").alias("a"), pl.col("a").alias("b"), pl.exclude("a", "b"))
    between = pl.concat([known, turned]).unique(["a", "b", "scope"], keep="first", maintain_order=True)
    joined = (
        wanted.join(between, on=["a", "b"], how="inner", maintain_order="left_right")
        .join(each.rename({"own": "aa", "with_base": "ao"}), on=["a", "scope"], how="left", maintain_order="left")
        .join(
            each.rename({"a": "b", "own": "bb", "with_base": "bo"}),
            on=["b", "scope"],
            how="left",
            maintain_order="left",
        )
        .join(own.filter(pl.col("a") == base).select("scope", oo="own"), on="scope", how="left", maintain_order="left")
    )
    numbers = ("size", "aa", "bb", "ab", "ao", "bo", "oo", "sign_agreement", "sign_conflict")
    products = joined.rename({"dot": "ab"}).select("a", "b", "scope", *numbers).collect()
    if any(products[name].null_count() for name in numbers):
        raise TableError("The Gram matrix mixes checkpoints of different tensors: materialize weight_gram again.")
    return products


def _base_of(gram: pl.DataFrame) -> str:
    others = gram.group_by("checkpoint").agg(pl.col("other").unique())
    alone = [c for c, seen in others.iter_rows() if list(seen) == [c]]
    if len(alone) != 1:
        raise TableError(
            f"The Gram matrix has the own row of {len(alone)} bases, not of one: materialize weight_gram again."
        )
    return str(alone[0])


def _sums(gram: pl.DataFrame) -> pl.DataFrame:
    """Products summed over the tensors of each scope, float64; tensors in name order, so that the bytes are fixed."""
    numbers = ("size", "dot", "sign_agreement", "sign_conflict")
    rows = gram.lazy().select(
        pl.col("checkpoint").alias("a"), pl.col("other").alias("b"), "tensor", "layer", "module", *numbers
    )
    rows = rows.sort("a", "b", "tensor")
    scopes = (
        rows.with_columns(scope=pl.lit("global")),
        rows.filter(pl.col("layer") >= 0).with_columns(scope=pl.format("layer.{}", "layer")),
        rows.with_columns(scope=pl.format("module.{}", "module")),
    )
    return pl.concat(
        frame.group_by("a", "b", "scope", maintain_order=True).agg(pl.col(n).sum() for n in numbers) for frame in scopes
    ).collect()


def _require(seen: set[tuple[str, str]], wanted: list[tuple[str, str]], what: str) -> None:
    missing = [pair for pair in wanted if pair not in seen]
    if missing:
        a, b = missing[0]
        named = f"{a!r} and {b!r}" if what == "with each other" else repr(a)
        raise TableError(
            f"The Gram matrix has no products of {named} {what} ({len(missing)} missing in all): "
            "materialize weight_gram for the newer checkpoint."
        )
