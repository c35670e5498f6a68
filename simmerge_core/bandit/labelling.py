"""Active labelling: which pairs beyond the design are worth a day's merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from simmerge_core.bandit.encoder import Encoder
from simmerge_core.bandit.information import Criterion, Group, Pick, most_informative
from simmerge_core.bandit.posterior import Posterior
from simmerge_core.catalog import Catalog
from simmerge_core.labels import kind_of, shares_of, split_of
from simmerge_core.labels.pairs import DESIGN_SCHEMA
from simmerge_core.operators.actions import parse_action
from simmerge_core.selector.block import block_of


def unlabelled(
    catalog: Catalog, features: pl.DataFrame, labels: pl.DataFrame, actions: Sequence[str]
) -> dict[tuple[str, str], int]:
    """Pairs that could be labelled, with the number of merges that it would take.

    A pair is of two domains, has features on both domains' tasks, and lies in no test split: those are for judging.
    It counts as labelled once every action was scored on both tasks.

    Parameters
    ----------
    features, labels
        Tables `pairwise_features` and `merge_labels` with their `task` column.
    """
    domains, tasks = catalog.domains, set(catalog.task_ids)
    shares, salt = shares_of(catalog), catalog.labels.salt
    wanted = pl.DataFrame({"seen": [str(parse_action(action)) for action in actions]})
    texts = labels["action"].unique().to_list()
    straight = {text: str(parse_action(text)) for text in texts}
    mirrored = {text: str(parse_action(text).mirrored()) for text in texts}
    low, high = pl.min_horizontal("a", "b").alias("low"), pl.max_horizontal("a", "b").alias("high")
    seen = (
        pl.when(pl.col("a") < pl.col("b"))
        .then(pl.col("action").replace_strict(straight, return_dtype=pl.String))
        .otherwise(pl.col("action").replace_strict(mirrored, return_dtype=pl.String))
    )
    known = labels.select(low, high, "task", seen.alias("seen")).unique()
    domain = pl.DataFrame(
        {"id": list(domains), "domain": list(domains.values())}, schema=dict.fromkeys(("id", "domain"), pl.String)
    )
    computed = features.filter(pl.col("a") < pl.col("b")).select(
        pl.col("a").alias("low"), pl.col("b").alias("high"), "task"
    )
    pairs = (
        computed.unique()
        .join(domain.rename({"id": "low", "domain": "low_domain"}), on="low")
        .join(domain.rename({"id": "high", "domain": "high_domain"}), on="high")
        .filter(pl.col("low_domain") != pl.col("high_domain"))
        .filter((pl.col("task") == pl.col("low_domain")) | (pl.col("task") == pl.col("high_domain")))
    )
    # A pair needs features on all of its own tasks that the catalog has.
    own = pl.sum_horizontal(pl.col(side).is_in(list(tasks)) for side in ("low_domain", "high_domain"))
    pairs = pairs.filter(pl.len().over("low", "high") == own)
    missing = (
        pairs.select("low", "high", "task")
        .join(wanted, how="cross")
        .join(known, on=["low", "high", "task", "seen"], how="anti")
        .group_by("low", "high")
        .agg(pl.col("seen").n_unique().alias("merges"))
        .sort("low", "high")
    )
    return {
        (a, b): merges for a, b, merges in missing.iter_rows() if split_of(a, b, shares=shares, salt=salt) != "test"
    }


def informative_pairs(
    catalog: Catalog,
    features: pl.DataFrame,
    candidates: Mapping[tuple[str, str], int],
    encoder: Encoder,
    posterior: Posterior,
    *,
    budget: int,
    label_weight: float = 1.0,
    criterion: Criterion = "information",
) -> tuple[pl.DataFrame, list[Pick]]:
    """The pairs to label for a budget of merges: rows as `labels.design` gives them, and what each pick tells.

    Parameters
    ----------
    candidates
        As `unlabelled` returns them.
    posterior
        What is known of each action so far, over the encoder's coordinates.
    label_weight
        What a label counts in that posterior.
    """
    pairs = list(candidates)
    domains, tasks = catalog.domains, set(catalog.task_ids)
    low, high = pl.min_horizontal("a", "b").alias("low"), pl.max_horizontal("a", "b").alias("high")
    named = pl.DataFrame(pairs, schema={"low": pl.String, "high": pl.String}, orient="row")
    wanted = features.with_columns(low, high).join(named, on=["low", "high"], how="semi")
    own = (pl.col("task") == pl.col("a_domain")) | (pl.col("task") == pl.col("b_domain"))
    wanted = wanted.filter(own).unique(["task", "a", "b"], maintain_order=True).sort("low", "high", "task", "a")
    if wanted.is_empty():
        return pl.DataFrame(schema=DESIGN_SCHEMA), []
    z = encoder(block_of(wanted, encoder.feature_names))
    rows: dict[tuple[str, str], list[int]] = {}
    for number, key in enumerate(wanted.select("low", "high").iter_rows()):
        rows.setdefault(key, []).append(number)
    groups = [Group(f"{a}+{b}", z[np.array(at)], float(candidates[a, b])) for (a, b), at in rows.items()]
    picks = most_informative(groups, posterior, budget=budget, criterion=criterion, weight=label_weight)
    names = {f"{a}+{b}": (a, b) for a, b in rows}
    shares, salt = shares_of(catalog), catalog.labels.salt
    chosen = [
        (a, b, task, kind_of(domains[a], domains[b], task), split_of(a, b, shares=shares, salt=salt))
        for a, b in (names[pick.group] for pick in picks)
        for task in sorted({domains[a], domains[b]} & tasks)
    ]
    return pl.DataFrame(chosen, schema=DESIGN_SCHEMA, orient="row"), picks
