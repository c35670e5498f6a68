"""Plans that nobody had to search for: what the selector's plan must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import Action
from simmerge_core.planning.pool import pool_of
from simmerge_core.plans import Plan


def expert_last_best_fixed(
    checkpoints: Sequence[str],
    domains: Mapping[str, str],
    task: str,
    *,
    k: int | None = None,
    action: Action,
    require: Sequence[str] = (),
    one_per_domain: bool = True,
    seed: int = 0,
) -> Plan:
    """The task's expert at the end, where it has the largest share, and one operator throughout.

    Which expert and which auxiliaries, where the pool offers more than k, and the order of the auxiliaries, are drawn
    by `seed`; `random_order` with the same seed draws the same set.

    Parameters
    ----------
    checkpoints
        The pool.
    domains
        Domain per checkpoint.
    k
        Checkpoints in the plan; all of the pool by default.
    action
        The best fixed action of the training rows, e.g. ``BestFixed.train(rows).action``.

    Raises
    ------
    SelectionError
        If no set of k satisfies the rules.
    """
    drawn = _drawn(checkpoints, domains, task, k=k, require=require, one_per_domain=one_per_domain, seed=seed)
    order = [c for c in drawn if domains[c] != task] + [c for c in drawn if domains[c] == task]
    return Plan(tuple(order), (action,) * (len(order) - 1))


def random_order(
    checkpoints: Sequence[str],
    domains: Mapping[str, str],
    task: str,
    *,
    k: int | None = None,
    action: Action,
    require: Sequence[str] = (),
    one_per_domain: bool = True,
    seed: int = 0,
) -> Plan:
    """A drawn set in a drawn order, with one operator throughout (§4.3); arguments as in `expert_last_best_fixed`."""
    drawn = _drawn(checkpoints, domains, task, k=k, require=require, one_per_domain=one_per_domain, seed=seed)
    return Plan(tuple(drawn), (action,) * (len(drawn) - 1))


def _drawn(
    checkpoints: Sequence[str],
    domains: Mapping[str, str],
    task: str,
    *,
    k: int | None,
    require: Sequence[str],
    one_per_domain: bool,
    seed: int,
) -> list[str]:
    unknown = [c for c in checkpoints if c not in domains]
    if unknown:
        raise SelectionError(f"The checkpoints {unknown} have no domain: check the ids against the catalog.")
    ids = sorted(checkpoints)
    size = len(ids) if k is None else k
    pool = pool_of(
        ids, [domains[c] for c in ids], tasks=(task,), k=size, require=require, one_per_domain=one_per_domain
    )
    rng = np.random.default_rng(seed)
    members = np.zeros((1, 0), dtype=np.int64)
    while members.shape[1] < size:
        left = np.setdiff1d(np.arange(len(ids)), members[0])
        # A partial set may fit the rules and still have no completion, so each candidate is checked to the end.
        tried = np.concatenate([np.repeat(members, len(left), axis=0), left[:, None]], axis=1)
        fine = [row for row in tried if pool.completions(row) > 0]
        members = fine[rng.integers(len(fine))][None]
    return [ids[i] for i in rng.permutation(members[0])]
