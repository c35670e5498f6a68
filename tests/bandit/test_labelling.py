"""Active labelling: which pairs may still be labelled, what they cost, and which of them a budget goes to."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from bandit_world import ACTIONS, World, encoded_by_hand, make_world
from hypothesis import given, settings
from hypothesis import strategies as st

from simmerge_core.bandit import WarmStart
from simmerge_core.bandit.labelling import informative_pairs, unlabelled
from simmerge_core.labels import design, shares_of, split_of
from simmerge_core.labels.pairs import DESIGN_SCHEMA

MIRRORED = {"linear@0.5": "linear@0.5", "slerp@0.3": "slerp@0.7", "slerp@0.7": "slerp@0.3", "ties@0.5": "ties@0.5"}


@pytest.fixture(scope="module")
def world() -> World:
    """Half of the pairs of two domains are labelled."""
    return make_world(share=0.5)


@pytest.fixture(scope="module")
def warm(world: World) -> WarmStart:
    return world.warm()


@pytest.fixture(scope="module")
def candidates(world: World) -> dict[tuple[str, str], int]:
    return unlabelled(world.catalog, world.features, world.labels, ACTIONS)


def split(world: World, a: str, b: str) -> str:
    return split_of(a, b, shares=shares_of(world.catalog), salt=world.catalog.labels.salt)


def by_hand(world: World, features: pl.DataFrame, labels: pl.DataFrame) -> dict[tuple[str, str], int]:
    """Pair by pair, action by action, task by task."""
    domains = world.catalog.domains
    computed = set(features.select("a", "b", "task").iter_rows())
    known = set(labels.select("a", "b", "task", "action").iter_rows())
    found = {}
    for a, b in itertools.combinations(sorted(domains), 2):
        own = {domains[a], domains[b]}
        if len(own) == 1 or split(world, a, b) == "test" or any((a, b, task) not in computed for task in own):
            continue
        missing = sum(
            any((a, b, task, action) not in known and (b, a, task, MIRRORED[action]) not in known for task in own)
            for action in ACTIONS
        )
        if missing:
            found[a, b] = missing
    return found


def test_pairs_beyond_the_design_can_be_labelled(world: World, candidates: dict[tuple[str, str], int]) -> None:
    assert candidates == by_hand(world, world.features, world.labels)
    assert list(candidates) == sorted(candidates)
    designed = set(design(world.catalog, world.catalog.checkpoint_ids).select("a", "b").iter_rows())
    assert candidates
    assert not designed & set(candidates)
    assert {split(world, a, b) for a, b in candidates} == {"train", "validation"}
    assert set(candidates.values()) == {len(ACTIONS)}
    # Everything of two domains that is no test pair is labelled or a candidate.
    domains = world.catalog.domains
    cross = {p for p in itertools.combinations(sorted(domains), 2) if domains[p[0]] != domains[p[1]]}
    assert set(candidates) | {p for p in designed if split(world, *p) != "test"} == {
        p for p in cross if split(world, *p) != "test"
    }


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_merges_that_are_missing_are_counted(world: World, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    labels = world.labels.filter(pl.Series(rng.random(world.labels.height) < data.draw(st.sampled_from([0.5, 0.9]))))
    turned = labels.select(
        pl.col("b").alias("a"),
        pl.col("a").alias("b"),
        "task",
        pl.col("action").replace_strict(MIRRORED).alias("action"),
    )
    some = pl.Series(rng.random(labels.height) < 0.5)  # labels of the mirrored merge are labels of the merge
    mixed = pl.concat([labels.select(turned.columns).filter(some), turned.filter(~some)])
    features = world.features.filter(pl.Series(rng.random(world.features.height) < 0.95))
    assert unlabelled(world.catalog, features, mixed, ACTIONS) == by_hand(world, features, mixed)


def test_actions_in_another_form_are_the_same(world: World, candidates: dict[tuple[str, str], int]) -> None:
    labels = world.labels.with_columns(pl.col("action").str.replace("@0.5", "", literal=True))
    assert unlabelled(world.catalog, world.features, labels, ["linear", "slerp@0.30", "slerp@.7", "ties"]) == candidates


def test_checkpoints_that_left_the_catalog_are_left_out(world: World, candidates: dict[tuple[str, str], int]) -> None:
    gone = world.catalog.checkpoint_ids[0]
    fewer = world.catalog.model_copy(update={"checkpoints": world.catalog.checkpoints[1:]})
    found = unlabelled(fewer, world.features, world.labels, ACTIONS)
    assert found == {pair: cost for pair, cost in candidates.items() if gone not in pair}


def test_a_domain_that_is_no_task_asks_for_no_label(world: World) -> None:
    tasks = tuple(task for task in world.catalog.tasks if task.id != "rag")
    fewer = world.catalog.model_copy(update={"tasks": tasks})
    labels = world.labels.filter(pl.col("task") != "rag")
    features = world.features.filter(pl.col("task") != "rag")
    found = unlabelled(fewer, features, labels, ACTIONS)
    assert set(found) == set(unlabelled(world.catalog, world.features, world.labels, ACTIONS))


# --- what a budget goes to


@pytest.mark.parametrize("budget", [0, 3, 4, 10, 40, 10_000])
def test_the_budget_is_kept(world: World, warm: WarmStart, candidates: dict[tuple[str, str], int], budget: int) -> None:
    costs = {pair: 1 + number % 4 for number, pair in enumerate(candidates)}
    pairs, picks = informative_pairs(
        world.catalog, world.features, costs, warm.encoder, warm.bandit.posterior, budget=budget
    )
    chosen = dict.fromkeys(pairs.select("a", "b").iter_rows())
    assert sum(costs[pair] for pair in chosen) <= budget
    assert [pick.group for pick in picks] == [f"{a}+{b}" for a, b in chosen]
    assert bool(picks) == (budget > 0)
    if budget == 10_000:
        assert set(chosen) == set(candidates)
    assert dict(pairs.schema) == DESIGN_SCHEMA


def test_rows_are_those_that_the_design_would_have(
    world: World, warm: WarmStart, candidates: dict[tuple[str, str], int]
) -> None:
    pairs, _ = informative_pairs(
        world.catalog, world.features, candidates, warm.encoder, warm.bandit.posterior, budget=40
    )
    everything = design(make_world(share=1.0).catalog, world.catalog.checkpoint_ids)
    assert pairs.height == 2 * 10  # on both domains' tasks, four merges each
    assert pairs.join(everything, on=list(DESIGN_SCHEMA), how="anti").is_empty()


def test_it_is_the_same_in_any_order(world: World, warm: WarmStart, candidates: dict[tuple[str, str], int]) -> None:
    found = []
    for seed in (None, 0, 1):
        features, offered = world.features, candidates
        if seed is not None:
            order = np.random.default_rng(seed).permutation(world.features.height)
            features, offered = world.features[order], dict(sorted(candidates.items(), reverse=True))
        found.append(
            informative_pairs(world.catalog, features, offered, warm.encoder, warm.bandit.posterior, budget=40)
        )
    assert all(pairs.equals(found[0][0]) and picks == found[0][1] for pairs, picks in found)


@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_the_first_pick_tells_most(
    world: World, warm: WarmStart, candidates: dict[tuple[str, str], int], weight: float
) -> None:
    """½ log det(I + w Z A⁻¹ Zᵀ) summed over arms, of both orientations' rows on both tasks."""
    domains, encoder, posterior = world.catalog.domains, warm.encoder, warm.bandit.posterior
    at = {key: i for i, key in enumerate(world.features.select("a", "b", "task").iter_rows())}
    told = {}
    for a, b in candidates:
        rows = [(x, y, task) for x, y in ((a, b), (b, a)) for task in (domains[a], domains[b])]
        features = world.features[[at[row] for row in rows]].select(encoder.feature_names).to_numpy()
        z = np.array([encoded_by_hand(encoder, x, row[2]) for x, row in zip(features, rows, strict=True)])
        told[f"{a}+{b}"] = 0.5 * math.fsum(
            np.linalg.slogdet(np.eye(4) + weight * z @ np.linalg.solve(precision, z.T))[1]
            for precision in posterior.precision
        )
    _, picks = informative_pairs(
        world.catalog, world.features, candidates, encoder, posterior, budget=4, label_weight=weight
    )
    assert [pick.group for pick in picks] == [max(told, key=lambda group: told[group])]
    assert picks[0].gain == pytest.approx(max(told.values()), rel=1e-8)


def test_without_candidates_nothing_is_chosen(world: World, warm: WarmStart) -> None:
    pairs, picks = informative_pairs(world.catalog, world.features, {}, warm.encoder, warm.bandit.posterior, budget=40)
    assert (pairs.height, dict(pairs.schema), picks) == (0, DESIGN_SCHEMA, [])
