"""Which plans of three and more checkpoints are executed, so that choices among them can be scored (§4.2, §4.3)."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, permutations, product
from typing import TYPE_CHECKING

from simmerge_core.labels.pairs import fraction, shares_of, split_of
from simmerge_core.operators.actions import Action
from simmerge_core.plans import Plan

if TYPE_CHECKING:
    from simmerge_core.catalog import Catalog

_ALL_SEQUENCES_UP_TO = 3
_DRAWN_PLANS = 12


def design_plans(catalog: Catalog, known: Iterable[str], task: str) -> list[Plan]:
    """The designed plans of a task: of each configuration, all that are worth comparing.

    A configuration is one expert of the task and k - 1 checkpoints of other domains, no two of one (§3.2); as many as
    ``labels.multiway`` says for each k are taken, those without training pairs first. With three checkpoints every
    order is executed under every sequence of the paper's actions. With more, every order under one action throughout,
    and 12 others with the lowest hashes: all would be 12 · 27 for k = 4.

    Parameters
    ----------
    known
        Ids of the checkpoints that may take part.
    """
    actions, salt = catalog.actions("paper"), catalog.labels.salt
    plans: list[Plan] = []
    for k, count in sorted(catalog.labels.multiway.items()):
        for members in configurations(catalog, known, task, k=k, count=count):
            every = [
                Plan(order, steps) for order in _orders(members, actions) for steps in product(actions, repeat=k - 1)
            ]
            if k > _ALL_SEQUENCES_UP_TO:
                even = [plan for plan in every if len(set(plan.actions)) == 1]
                mixed = [plan for plan in every if len(set(plan.actions)) > 1]
                every = even + heapq.nsmallest(_DRAWN_PLANS, mixed, key=lambda plan: fraction(salt, "plan", str(plan)))
            plans += every
    return plans


def designed_configurations(catalog: Catalog, known: Iterable[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Task and checkpoints, expert first, of every configuration in the design of any task of the catalog.

    Parameters
    ----------
    known
        Ids of the checkpoints that may take part.
    """
    ids = sorted(set(known))
    return [
        (task, members)
        for task in catalog.task_ids
        for k, count in sorted(catalog.labels.multiway.items())
        for members in configurations(catalog, ids, task, k=k, count=count)
    ]


def configurations(catalog: Catalog, known: Iterable[str], task: str, *, k: int, count: int) -> list[tuple[str, ...]]:
    """The `count` best configurations of k checkpoints, expert first and the others sorted.

    No pair of expert and auxiliary that a selector was fitted on may be in a configuration that it is judged on (§3.2),
    so those with the fewest such pairs come first: none in a catalog of some size, as few as can be in a small one.
    The lowest hashes decide among equals.
    """
    domains = {id: catalog.checkpoint(id).domain for id in sorted(set(known)) if id != catalog.base.id}
    salt, shares = catalog.labels.salt, shares_of(catalog)

    def rank(members: tuple[str, ...]) -> tuple[int, float]:
        expert, *auxiliaries = members
        fitted = sum(split_of(expert, other, shares=shares, salt=salt) != "test" for other in auxiliaries)
        return fitted, fraction(salt, "configuration", task, *members)

    return heapq.nsmallest(count, _candidates(domains, task, k), key=rank)


def _candidates(domains: dict[str, str], task: str, k: int) -> Iterator[tuple[str, ...]]:
    experts = [id for id, domain in domains.items() if domain == task]
    others = [id for id, domain in domains.items() if domain != task]
    for rest in combinations(others, k - 1):
        if len({domains[id] for id in rest}) == k - 1:
            for expert in experts:
                yield (expert, *rest)


def _orders(members: Sequence[str], actions: Sequence[Action]) -> list[tuple[str, ...]]:
    """Every order; one of each two that differ in the first two places only, where all actions treat both alike."""
    symmetric = all(action.mirrored() == action for action in actions)
    return [order for order in permutations(members) if not symmetric or order[0] < order[1]]
