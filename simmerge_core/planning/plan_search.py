"""Search over plans: which checkpoints, in which order, with which operators (§2.3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import Action, parse_action
from simmerge_core.planning.beam import beam_search
from simmerge_core.planning.estimate import estimator_of
from simmerge_core.planning.exhaustive import exhaustive_search
from simmerge_core.planning.intervals import plan_intervals
from simmerge_core.planning.pairs import pair_table
from simmerge_core.planning.parallel import cores
from simmerge_core.planning.pool import pool_of
from simmerge_core.planning.scoring import Prefixes, Scorer
from simmerge_core.planning.target import Target, target_of
from simmerge_core.selector.mlp import Selector
from simmerge_core.selector.prediction import UtilityModel

METHODS = ("auto", "exhaustive", "beam")
OPERATORS_BY = ("greedy", "joint")
_FEW = 4_096


def search(
    selector: UtilityModel,
    features: pl.DataFrame,
    checkpoints: Sequence[str],
    task: str | Sequence[str] | Target,
    *,
    k: int,
    top: int = 10,
    actions: Sequence[Action | str] | None = None,
    require: Sequence[str] = (),
    combine: str = "mean",
    weights: Sequence[float] | None = None,
    aggregate: str = "last",
    operators: str = "greedy",
    orientation: str = "expert_first",
    propagation: str = "bounds",
    one_per_domain: bool = True,
    method: str = "auto",
    limit: int = 400_000,
    beam: int = 64,
    threads: int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> pl.DataFrame:
    """Rank plans of k checkpoints out of a pool by predicted utility, without merging anything.

    Parameters
    ----------
    selector
        Predicts the utility of a step; the selector or any baseline of `selector.MODELS`.
    features
        Table `pairwise_features` with its `task` column: all ordered pairs of the pool on the target's tasks.
    checkpoints
        The pool; the subset of k is part of the search.
    task
        Target task, several, or a `Target`. A plan holds exactly one expert of each target task where the pool has
        one (and k leaves room), as in §3.1.
    top
        Number of plans to return at most.
    actions
        Subset of the selector's actions; all by default.
    require
        Ids that every plan must hold.
    combine, weights
        Utility over several tasks: weighted ``mean`` or ``min``.
    aggregate
        Utility of a plan from its steps: ``last`` (default; the last step predicts the final model), ``mean``, ``sum``.
    operators
        ``greedy``: each step takes the action with the highest predicted utility (§2.3.2). ``joint``: all sequences.
    orientation
        How a step is shown to the selector; see `scoring.Scorer`. With ``expert_first`` or ``both`` the first two
        checkpoints of a plan are interchangeable, and each such pair is listed once, expert first.
    propagation
        Weight features of intermediates: ``bounds`` by App. D, ``gram`` exactly for linear merges.
    one_per_domain
        At most one checkpoint per domain (§3.2).
    method
        ``exhaustive``, ``beam``, or ``auto``: exhaustive up to `limit` plans. Column `search` says which it was.
    beam
        Width of the beam.
    threads
        Of the exhaustive search with the selector; all of the process's cores by default. The result does not depend
        on it.

    Returns
    -------
    Table `merge_plans` without `selector_key`, best first. Plans of equal utility keep the order of their ids. Columns
    `low` to `distinguishable` are the calibrated intervals (`planning.intervals`), null for a baseline.

    Raises
    ------
    SelectionError
        If a checkpoint, task or action is unknown, pairs are missing (they are named), or no set of k satisfies the
        rules.
    """
    if method not in METHODS:
        raise SelectionError(f"Search method {method!r} does not exist: choose one of {METHODS}.")
    if operators not in OPERATORS_BY:
        raise SelectionError(f"Operators cannot be chosen by {operators!r}: choose one of {OPERATORS_BY}.")
    if top < 1 or beam < 1:
        raise SelectionError(f"top = {top} and beam = {beam} must be at least 1.")
    if threads is not None and threads < 1:
        raise SelectionError(f"threads = {threads} must be at least 1.")
    target = target_of(task, combine=combine, weights=weights)
    table = pair_table(features, checkpoints=checkpoints, tasks=target.tasks, feature_names=selector.feature_names)
    pool = pool_of(
        table.checkpoints, table.domains, tasks=target.tasks, k=k, require=require, one_per_domain=one_per_domain
    )
    chosen = tuple(map(parse_action, actions)) if actions is not None else selector.actions
    scorer = Scorer(
        selector, table, target, actions=chosen, orientation=orientation, aggregate=aggregate, propagation=propagation
    )
    count = pool.subsets() * math.factorial(k) // (2 if scorer.symmetric else 1)
    exhaustive = method == "exhaustive" or (method == "auto" and count <= limit)
    report = progress or (lambda message, fraction: None)
    # The estimator has a price of its own, which a few plans do not bring in.
    estimator = estimator_of(scorer, k=k) if count > _FEW else None
    if exhaustive:
        report(f"scoring all {count} plans", 0.0)
        plans = exhaustive_search(
            scorer,
            pool,
            top=top,
            joint=operators == "joint",
            estimator=estimator,
            threads=(threads or cores()) if isinstance(selector, Selector) else 1,
            progress=lambda f: report(f"scoring all {count} plans", f),
        )
    else:
        report(f"beam search among {count} plans", 0.0)
        plans = beam_search(scorer, pool, top=top, width=beam, joint=operators == "joint", estimator=estimator)
    report("done", 1.0)
    return _frame(scorer, plans, target, "exhaustive" if exhaustive else "beam")


def _frame(scorer: Scorer, plans: Prefixes, target: Target, name: str) -> pl.DataFrame:
    ensemble = scorer.ensemble(plans)
    steps, whole = scorer.uncertainties(ensemble)
    n, k = plans.members.shape
    ids = np.array(scorer.table.checkpoints, dtype=object)
    texts = np.array([str(a) for a in scorer.actions], dtype=object)
    return pl.DataFrame(
        {
            "rank": np.arange(1, n + 1),
            "task": [str(target)] * n,
            "k": [k] * n,
            "order": ids[plans.members].tolist(),
            "actions": texts[plans.actions].tolist(),
            "predicted_utility": scorer.plan_utility(plans),
            "uncertainty": whole,
            **plan_intervals(scorer, plans, ensemble),
            "step_utilities": plans.utilities.tolist(),
            "step_uncertainties": steps.tolist(),
            "search": [name] * n,
        },
        schema={
            "rank": pl.Int64,
            "task": pl.String,
            "k": pl.Int64,
            "order": pl.List(pl.String),
            "actions": pl.List(pl.String),
            "predicted_utility": pl.Float64,
            "uncertainty": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
            "difference_low": pl.Float64,
            "difference_high": pl.Float64,
            "distinguishable": pl.Boolean,
            "step_utilities": pl.List(pl.Float64),
            "step_uncertainties": pl.List(pl.Float64),
            "search": pl.String,
        },
    )
