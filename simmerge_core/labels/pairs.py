"""Which pairs are labelled on which tasks, and in which split each pair lies: stable hashes of ids, nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Set
from itertools import combinations
from typing import TYPE_CHECKING

import polars as pl

from simmerge_core.errors import CatalogError

if TYPE_CHECKING:
    from simmerge_core.catalog import Catalog

SPLITS = ("train", "validation", "test")
DESIGN_SCHEMA: dict[str, type[pl.DataType]] = dict.fromkeys(("a", "b", "task", "kind", "split"), pl.String)


def fraction(*parts: str) -> float:
    """A number in [0, 1), uniform over inputs and the same everywhere and forever: 53 bits of SHA-256."""
    digest = hashlib.sha256("\x1f".join(parts).encode("utf-8")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def split_of(a: str, b: str, *, shares: Mapping[str, float], salt: str) -> str:
    """Split of the unordered pair {a, b}, from a hash of its two ids: adding checkpoints never moves it.

    Parameters
    ----------
    shares
        Share of pairs per split, summing to 1. Test takes the lowest hashes, then validation, then train, so that
        changing the validation share moves no pair into or out of test.
    salt
        Part of the hash; another salt draws other splits.
    """
    total = sum(shares.values())
    if set(shares) - set(SPLITS) or any(s < 0 for s in shares.values()) or abs(total - 1.0) > 1e-9:
        raise CatalogError(
            f"Split shares {dict(shares)} are not usable: give shares of {', '.join(SPLITS)} that sum to 1."
        )
    first, second = sorted((a, b))
    position, edge = fraction(salt, "split", first, second), 0.0
    for split in reversed(SPLITS):
        edge += shares.get(split, 0.0)
        if position < edge:
            return split
    return "train"


def shares_of(catalog: Catalog) -> dict[str, float]:
    """Split shares that the catalog's label settings declare."""
    test, validation = catalog.labels.test_share, catalog.labels.validation_share
    return {"train": 1.0 - test - validation, "validation": validation, "test": test}


def kind_of(domain_a: str, domain_b: str, task: str) -> str:
    """How a pair stands to a task (§3.1): ``expert_expert``, ``expert_auxiliary`` or ``auxiliary_auxiliary``."""
    experts = (domain_a == task) + (domain_b == task)
    return ("auxiliary_auxiliary", "expert_auxiliary", "expert_expert")[experts]


def design(catalog: Catalog, known: Iterable[str]) -> pl.DataFrame:
    """The designed labels: which unordered pairs are scored on which tasks.

    A pair of checkpoints of two different domains is merged when its hash falls below
    ``labels.expert_auxiliary``, and then scored on both domains' tasks (an expert-auxiliary pair for either). For
    each third task, a hash of pair and task below ``labels.auxiliary_auxiliary`` adds an auxiliary-auxiliary row.
    Each choice looks at the two ids and the task alone, so that it does not depend on which other checkpoints exist
    or on the order in which they came. Checkpoints of one domain are not paired: a merge has at most one expert per
    task (§3.2).

    Parameters
    ----------
    known
        Ids of the checkpoints to pair, any order.

    Returns
    -------
    pl.DataFrame
        ``a, b, task, kind, split`` (strings), a < b, sorted by a, b, task in that order.
    """
    settings, shares, tasks = catalog.labels, shares_of(catalog), set(catalog.task_ids)
    domains = {id: catalog.checkpoint(id).domain for id in sorted(set(known))}
    rows = []
    for a, b in combinations(domains, 2):
        own = {domains[a], domains[b]}
        if len(own) == 1 or catalog.base.id in (a, b):
            continue
        split = split_of(a, b, shares=shares, salt=settings.salt)
        chosen = own & tasks if fraction(settings.salt, "expert", a, b) < settings.expert_auxiliary else set()
        chosen |= {
            task
            for task in tasks - own
            if fraction(settings.salt, "auxiliary", a, b, task) < settings.auxiliary_auxiliary
        }
        rows += [(a, b, task, kind_of(domains[a], domains[b], task), split) for task in sorted(chosen)]
    return pl.DataFrame(rows, schema=DESIGN_SCHEMA, orient="row").sort("a", "b", "task")


def within_budget(
    pairs: Iterable[tuple[str, str]], labelled: Set[tuple[str, str]], *, budget: int | None, salt: str
) -> set[tuple[str, str]]:
    """Those of a checkpoint's designed pairs that its budget allows.

    Pairs that are labelled already stay and count; what is left of the budget goes to the others in the order of a hash
    of both ids. The same pairs give the same choice, also after an interruption; but which pairs are a checkpoint's,
    and which of them were there when it was labelled, depends on the order of arrival.

    Parameters
    ----------
    pairs
        Designed pairs a < b that the checkpoint is to label.
    labelled
        Pairs a < b that have labels on some task.
    budget
        Pairs in all; no bound when None.
    """
    asked = set(pairs)
    kept = asked & labelled
    if budget is None:
        return asked
    further = sorted(asked - kept, key=lambda pair: (fraction(salt, "budget", *pair), pair))
    return kept | set(further[: max(0, budget - len(kept))])
