"""Weight features of ordered pairs from inner products (App. B.3, B.4)."""

from __future__ import annotations

import polars as pl

from simmerge_core.features.columns import MODULES
from simmerge_core.features.summaries import summaries
from simmerge_core.similarity.geometry import Geometry

_PER_MODULE = (
    "weight_cosine",
    "weight_l2_relative",
    "weight_log_norm_ratio",
    "log_norm_a_base",
    "log_norm_b_base",
    "task_vector_cosine",
)
_PER_LAYER = ("weight_cosine", "weight_l2_relative", "weight_log_norm_ratio")


def structural_features(products: pl.DataFrame) -> pl.DataFrame:
    """The weight features of each pair of `products`.

    Parameters
    ----------
    products
        Rows as of `similarity.pair_products`: also those of a plan's intermediate, whose products are combinations of
        its inputs'. A scope that is missing has a stand-in: a tied head the embedding, any other module kind or block
        the whole model.

    Returns
    -------
    One row per pair, in order of appearance: a, b and every feature of the groups ``weight``, ``weight_module`` and
    ``task_vector``, float64.
    """
    present = set(products["scope"])
    every = _measured(products)
    whole = every.filter(pl.col("scope") == "global").rename(
        {"log_norm_a_base": "weight_log_norm_a_base", "log_norm_b_base": "weight_log_norm_b_base"}
    )
    blocks = pl.col("scope").str.starts_with("layer.")
    in_layers = every.filter(blocks if any(s.startswith("layer.") for s in present) else pl.col("scope") == "global")
    layers = in_layers.group_by("a", "b", maintain_order=True).agg(
        expression for name in _PER_LAYER for expression in summaries(name, f"layer_{name}")
    )
    result = whole.drop("scope").join(layers, on=["a", "b"], how="left", maintain_order="left")
    for module in MODULES:
        # A tied head is the embedding; a kind of module that a model does not have is stood in for by the whole model.
        chain = (f"module.{module}", *(("module.embedding",) if module == "head" else ()), "global")
        scope = next(candidate for candidate in chain if candidate in present)
        rows = every.filter(pl.col("scope") == scope).select(
            "a", "b", *(pl.col(name).alias(f"{module}_{name}") for name in _PER_MODULE)
        )
        result = result.join(rows, on=["a", "b"], how="left", maintain_order="left")
    return result


def _measured(products: pl.DataFrame) -> pl.DataFrame:
    """Every weight feature of every pair and scope, by the name it has for the whole model."""
    g = Geometry(products)
    return products.select("a", "b", "scope").with_columns(
        weight_cosine=pl.Series(g.cosine),
        weight_l2=pl.Series(g.l2),
        weight_norm_a=pl.Series(g.norm_a),
        weight_norm_b=pl.Series(g.norm_b),
        weight_l2_relative=pl.Series(g.l2_relative),
        weight_log_norm_ratio=pl.Series(g.log_ratio(g.norm_a, g.norm_b)),
        log_norm_a_base=pl.Series(g.log_ratio(g.norm_a, g.norm_base)),
        log_norm_b_base=pl.Series(g.log_ratio(g.norm_b, g.norm_base)),
        task_vector_cosine=pl.Series(g.task_cosine),
        task_vector_log_norm_ratio=pl.Series(g.log_ratio(g.task_norm_a, g.task_norm_b)),
        task_vector_relative_norm_a=pl.Series(g.relative_to_base(g.task_norm_a)),
        task_vector_relative_norm_b=pl.Series(g.relative_to_base(g.task_norm_b)),
        task_vector_sign_agreement=products["sign_agreement"] / products["size"].clip(1),
        weight_sign_conflict=products["sign_conflict"] / products["size"].clip(1),
    )
