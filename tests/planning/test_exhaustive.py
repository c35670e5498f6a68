"""Exhaustive search by estimates: the plans of scoring everything exactly, of brute force, and of any thread count."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import polars as pl
import pytest
from selector_world import World

from simmerge_core.planning import contenders, exhaustive, plan_search, search, target_of
from simmerge_core.planning.beam import beam_search
from simmerge_core.planning.estimate import Estimator, estimator_of
from simmerge_core.planning.exhaustive import exhaustive_search
from simmerge_core.planning.pairs import pair_table
from simmerge_core.planning.pool import Pool, pool_of
from simmerge_core.planning.scoring import Prefixes, Scorer
from simmerge_core.selector import FeatureBlock, Selector


def _asked(
    world: World,
    selector: Selector,
    tasks: tuple[str, ...],
    k: int,
    *,
    combine: str = "mean",
    aggregate: str = "last",
    orientation: str = "expert_first",
    one_per_domain: bool = True,
    require: tuple[str, ...] = (),
) -> tuple[Scorer, Pool, Estimator]:
    ids = sorted(world.domains)
    table = pair_table(world.features, checkpoints=ids, tasks=tasks, feature_names=selector.feature_names)
    pool = pool_of(ids, table.domains, tasks=tasks, k=k, require=require, one_per_domain=one_per_domain)
    scorer = Scorer(
        selector,
        table,
        target_of(tasks, combine=combine),
        actions=selector.actions,
        aggregate=aggregate,
        orientation=orientation,
    )
    estimator = estimator_of(scorer, k=k)
    assert estimator is not None
    return scorer, pool, estimator


def _same(found: Prefixes, expected: Prefixes) -> None:
    np.testing.assert_array_equal(found.members, expected.members)
    np.testing.assert_array_equal(found.actions, expected.actions)
    np.testing.assert_allclose(found.utilities, expected.utilities, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(
    ("tasks", "k", "options"),
    [
        (("math",), 2, {}),
        (("math",), 3, {}),
        (("math",), 3, {"one_per_domain": False}),
        (("code",), 4, {"aggregate": "mean"}),
        (("rag", "code"), 3, {"aggregate": "sum", "orientation": "both", "one_per_domain": False}),
        (("math", "rag"), 3, {"combine": "min", "require": ("chat-01",)}),
        (("chat",), 3, {"orientation": "as_ordered"}),
    ],
)
def test_an_estimator_changes_no_plan(
    plan_world: World,
    plan_selector: Selector,
    monkeypatch: pytest.MonkeyPatch,
    tasks: tuple[str, ...],
    k: int,
    options: dict[str, object],
    joint: bool,
) -> None:
    monkeypatch.setattr(exhaustive, "_ROWS", 300)  # several parts even of a small pool
    scorer, pool, estimator = _asked(plan_world, plan_selector, tasks, k, **options)  # type: ignore[arg-type]
    for top in (1, 7, 10**6):
        exact = exhaustive_search(scorer, pool, top=top, joint=joint)
        _same(exhaustive_search(scorer, pool, top=top, joint=joint, estimator=estimator), exact)


def test_few_steps_are_scored_twice(
    plan_world: World, plan_selector: Selector, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, pool, estimator = _asked(plan_world, plan_selector, ("math",), 4, one_per_domain=False)
    exact: list[int] = []
    extend = Scorer.extend

    def counted(self: Scorer, prefixes: Prefixes, added: np.ndarray, *, joint: bool = False) -> Prefixes:
        if prefixes.members.shape[1] == 3:
            exact.append(len(added))
        return extend(self, prefixes, added, joint=joint)

    monkeypatch.setattr(Scorer, "extend", counted)
    exhaustive_search(scorer, pool, top=5, estimator=estimator)
    assert 5 <= sum(exact) < 0.05 * pool.subsets() * 12


def _brute_force(
    world: World, selector: Selector, task: str, k: int, *, one_per_domain: bool
) -> list[tuple[float, tuple[str, ...], list[str]]]:
    """Every plan in float64, one step at a time, from the feature table and `predict_block` alone."""
    ids = sorted(world.domains)
    rows = world.features.filter(pl.col("task") == task).select("a", "b", *selector.feature_names).iter_rows()
    pairs = {(r[0], r[1]): np.array(r[2:]) for r in rows}
    mirror = [selector.actions.index(a.mirrored()) for a in selector.actions]
    memory: dict[tuple[tuple[str, float], ...], np.ndarray] = {}

    def step(shares: tuple[tuple[str, float], ...], added: str) -> np.ndarray:
        key = (*shares, (added, -1.0))
        if key not in memory:
            turn = world.domains[added] == task and all(world.domains[m] != task for m, _ in shares)
            x = sum(w * (pairs[added, m] if turn else pairs[m, added]) for m, w in shares)
            no = np.zeros(1, dtype=bool)
            u = selector.predict_block(FeatureBlock(np.array([x]), np.array([task]), no, no)).utilities[0]
            memory[key] = np.round(u[mirror] if turn else u, 12)
        return memory[key]

    plans = []
    for order in permutations(ids, k):
        held = [world.domains[c] for c in order]
        if held.count(task) != 1 or (one_per_domain and len(set(held)) < k):
            continue
        if (held[0] != task, order[0]) > (held[1] != task, order[1]):
            continue  # the first two are interchangeable: the expert first, then by id
        shares: tuple[tuple[str, float], ...] = ((order[0], 1.0),)
        actions, utility = [], np.nan
        for added in order[1:]:
            utilities = step(shares, added)
            best = int(utilities.argmax())
            alpha, utility = selector.actions[best].alpha, float(utilities[best])
            actions.append(str(selector.actions[best]))
            shares = (*((m, w * (1.0 - alpha)) for m, w in shares), (added, alpha))
        plans.append((utility, order, actions))
    return sorted(plans, key=lambda plan: (-plan[0], plan[1]))


@pytest.mark.parametrize(("task", "k", "one_per_domain"), [("math", 3, False), ("code", 3, True), ("rag", 4, True)])
def test_search_by_estimates_equals_brute_force(
    plan_world: World,
    plan_selector: Selector,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    k: int,
    one_per_domain: bool,
) -> None:
    monkeypatch.setattr(plan_search, "_FEW", 0)  # estimates are used for this small pool too
    monkeypatch.setattr(exhaustive, "_ROWS", 200)
    expected = _brute_force(plan_world, plan_selector, task, k, one_per_domain=one_per_domain)[:10]
    ids = sorted(plan_world.domains)
    found = search(
        plan_selector, plan_world.features, ids, task, k=k, one_per_domain=one_per_domain, method="exhaustive"
    )
    assert [tuple(order) for order in found["order"].to_list()] == [order for _, order, _ in expected]
    assert found["actions"].to_list() == [actions for _, _, actions in expected]
    np.testing.assert_allclose(found["predicted_utility"], [u for u, _, _ in expected], rtol=0, atol=1e-9)


@pytest.mark.parametrize("propagation", ["bounds", "gram"])
def test_the_same_bytes_at_any_number_of_threads(
    plan_world: World, plan_selector: Selector, monkeypatch: pytest.MonkeyPatch, propagation: str
) -> None:
    monkeypatch.setattr(plan_search, "_FEW", 0)
    monkeypatch.setattr(exhaustive, "_ROWS", 150)
    monkeypatch.setattr(contenders, "_HELD", 3)  # exact scores come in between, which must not depend on timing
    ids = sorted(plan_world.domains)
    tables = [
        search(
            plan_selector,
            plan_world.features,
            ids,
            ["math", "rag"],
            k=4,
            top=20,
            one_per_domain=False,
            propagation=propagation,
            method="exhaustive",
            threads=threads,
        )
        for threads in (1, 2, 3, 8)
    ]
    for other in tables[1:]:
        assert other.equals(tables[0])
        for column in ("predicted_utility", "uncertainty"):
            assert other[column].to_numpy().tobytes() == tables[0][column].to_numpy().tobytes()


def test_plans_that_all_tie_are_listed_by_their_ids(
    plan_world: World, plan_selector: Selector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A selector that learned nothing: every step stays in question, and memory does not grow with them."""
    silent = {
        name: {layer: np.zeros_like(w) for layer, w in weights.items()}
        for name, weights in plan_selector.networks.items()
    }
    selector = replace(plan_selector, networks=silent)
    monkeypatch.setattr(contenders, "_HELD", 50)
    scorer, pool, estimator = _asked(plan_world, selector, ("math",), 3, one_per_domain=False)
    exact = exhaustive_search(scorer, pool, top=12)
    found = exhaustive_search(scorer, pool, top=12, estimator=estimator, threads=2)
    _same(found, exact)
    assert len(np.unique(found.utilities[:, -1])) == 1


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_beam_by_estimates_finds_as_good_a_plan(
    plan_world: World, plan_selector: Selector, k: int, joint: bool
) -> None:
    scorer, pool, estimator = _asked(plan_world, plan_selector, ("code",), k, one_per_domain=False)
    best = scorer.plan_utility(exhaustive_search(scorer, pool, top=1, joint=joint))[0]
    found = beam_search(scorer, pool, top=3, width=12, joint=joint, estimator=estimator)
    again = beam_search(scorer, pool, top=3, width=12, joint=joint, estimator=estimator)
    assert 0.99 * best <= scorer.plan_utility(found)[0] <= best + 1e-12
    assert found.utilities.tobytes() == again.utilities.tobytes()
    # What the beam reports is what scoring the plan step by step gives.
    everything = exhaustive_search(scorer, pool, top=10**6, joint=joint)
    listed = {
        (*m, *a): u
        for m, a, u in zip(
            everything.members.tolist(), everything.actions.tolist(), everything.utilities.tolist(), strict=True
        )
    }
    for m, a, u in zip(found.members.tolist(), found.actions.tolist(), found.utilities.tolist(), strict=True):
        assert listed[(*m, *a)] == pytest.approx(u, abs=1e-9)
