"""The other orientation of each label: o(a, b; α) = o(b, a; 1 − α), so one merge labels both."""

from __future__ import annotations

import polars as pl

from simmerge_core.operators.actions import parse_action

_SWAPPED = {
    "a": "b",
    "b": "a",
    "a_fingerprint": "b_fingerprint",
    "b_fingerprint": "a_fingerprint",
    "a_domain": "b_domain",
    "b_domain": "a_domain",
}


def mirrored(labels: pl.DataFrame) -> pl.DataFrame:
    """Add to pairwise labels the rows of the other orientation, ``(b, a, action.mirrored())``.

    Parameters
    ----------
    labels
        Rows of table ``merge_labels`` (with or without its partition columns); every column is kept.

    Returns
    -------
    pl.DataFrame
        The given rows first, then the mirrored ones, without those whose orientation and action were given already.
    """
    if labels.is_empty():
        return labels
    swapped = labels.rename({old: new for old, new in _SWAPPED.items() if old in labels.columns})
    actions = swapped["action"].unique().to_list()
    turned = {text: parse_action(text).mirrored() for text in actions}
    columns = [pl.col("action").replace_strict({t: str(a) for t, a in turned.items()}, return_dtype=pl.String)]
    if "alpha" in swapped.columns:
        alphas = {t: a.alpha for t, a in turned.items()}
        columns.insert(0, pl.col("action").replace_strict(alphas, return_dtype=pl.Float64).alias("alpha"))
    swapped = swapped.with_columns(columns).select(labels.columns)
    optional = ("task", "benchmark", "metric", "item_set", "seed")
    key = ["a", "b", "action", *(c for c in optional if c in labels.columns)]
    return pl.concat([labels, swapped.join(labels.select(key), on=key, how="anti", maintain_order="left")])
