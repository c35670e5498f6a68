"""The designed multi-way configurations: one expert, different domains, and no training pair inside (§3.2)."""

from __future__ import annotations

from itertools import combinations

import pytest

from simmerge_core.catalog import Benchmark, Catalog, CheckpointEntry, LabelDesign, Task
from simmerge_core.labels import shares_of, split_of
from simmerge_core.labels.multiway import configurations, design_plans

TASKS = ("math", "code", "rag", "law", "chat")


def catalog_of(experts_each: int, multiway: dict[int, int]) -> Catalog:
    ids = {f"{task}-{n}": task for task in TASKS for n in range(experts_each)}
    return Catalog(
        version=1,
        base=CheckpointEntry(id="base", path="base"),
        checkpoints=tuple(CheckpointEntry(id=id, path=id, domain=domain) for id, domain in ids.items()),
        tasks=tuple(Task(id=t, probes="p", benchmarks=(Benchmark(name="b", metrics=("acc,none",)),)) for t in TASKS),
        labels=LabelDesign(multiway=multiway),
    )


def fitted(catalog: Catalog, members: tuple[str, ...]) -> int:
    shares, salt = shares_of(catalog), catalog.labels.salt
    return sum(split_of(members[0], other, shares=shares, salt=salt) != "test" for other in members[1:])


@pytest.mark.parametrize("k", [3, 4])
def test_no_training_pair_is_inside_where_that_can_be_had(k: int) -> None:
    catalog = catalog_of(6, {3: 4, 4: 1})
    for task in TASKS:
        chosen = configurations(catalog, catalog.checkpoint_ids, task, k=k, count=4)
        assert len(set(chosen)) == 4
        for expert, *others in chosen:
            assert catalog.domains[expert] == task
            assert len({catalog.domains[id] for id in (expert, *others)}) == k
        assert [fitted(catalog, members) for members in chosen] == [0, 0, 0, 0]


def test_a_small_catalog_gets_those_with_the_fewest() -> None:
    catalog = catalog_of(2, {3: 3})
    every = [
        (expert, *others)
        for expert in catalog.checkpoint_ids
        if catalog.domains[expert] == "math"
        for others in combinations([id for id in catalog.checkpoint_ids if catalog.domains[id] != "math"], 2)
        if catalog.domains[others[0]] != catalog.domains[others[1]]
    ]
    chosen = configurations(catalog, catalog.checkpoint_ids, "math", k=3, count=3)
    fewest = sorted(fitted(catalog, members) for members in every)[:3]
    assert sorted(fitted(catalog, members) for members in chosen) == fewest


def test_three_checkpoints_are_executed_in_every_order_under_every_sequence() -> None:
    catalog = catalog_of(3, {3: 1})
    plans = design_plans(catalog, catalog.checkpoint_ids, "code")
    # The first two change places without effect at equal weights: three orders, nine sequences of the paper's three.
    assert len(plans) == len({str(plan) for plan in plans}) == 27
