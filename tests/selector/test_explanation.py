"""Shapley values against the mean over all orders of joining, in float64 on networks written out here."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selector_world import World, make_world

from simmerge_core.errors import SelectionError
from simmerge_core.features.columns import FEATURE_GROUPS
from simmerge_core.selector import Selector, SelectorConfig, explain, shapley_values, train, training_rows

ACTIONS = ("linear@0.5", "slerp@0.5", "ties@0.5")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(per_domain=3, actions=ACTIONS)


@pytest.fixture(scope="module")
def selector(world: World) -> Selector:
    config = SelectorConfig(
        groups=("kl", "weight", "self"), widths=(8,), learning_rates=(6e-3,), dropouts=(0.0,), members=2, epochs=20
    )
    return train(training_rows(world.features, world.labels, actions=ACTIONS), config=config, seed=0)


def _lead(selector: Selector, row: dict[str, float], present: set[str], action: int, reference: int) -> float:
    """The predicted lead with the absent groups at their mean, unit by unit."""
    x = []
    for i, name in enumerate(selector.feature_names):
        group = next(g for g, names in FEATURE_GROUPS.items() if name in names)
        z = (row[name] - selector.scaler.mean[i]) / selector.scaler.scale[i]
        x.append(min(max(z, -selector.scaler.clip), selector.scaler.clip) if group in present else 0.0)
    for task in selector.tasks:
        x.append(float(row["task"] == task) if "task code" in present else 1.0 / len(selector.tasks))
    utilities = np.zeros(len(selector.actions))
    for member in range(2):
        outputs = {}
        for head, weights in selector.networks.items():
            w = {layer: value[member].astype(np.float64) for layer, value in weights.items()}
            h = np.maximum(np.array(x) @ w["w1"] + w["b1"][0], 0.0)
            h = np.maximum(h @ w["w2"] + w["b2"][0], 0.0)
            outputs[head] = h @ w["w3"] + w["b3"][0]
        utilities += selector.targets.decode(outputs["level"][None], outputs["difference"][None])[0] / 2
    return float(utilities[action] - utilities[reference])


@pytest.mark.parametrize("at", [0, 7])
def test_contributions_are_the_mean_over_all_orders(world: World, selector: Selector, at: int) -> None:
    row = world.features.row(at, named=True)
    found = explain(selector, world.features[at])
    action, reference = selector.actions.index(found.action), selector.actions.index(found.reference)
    players = ["kl", "weight", "self", "task code"]
    total = dict.fromkeys(players, 0.0)
    for order in permutations(players):
        for place, player in enumerate(order):
            before, after = set(order[:place]), set(order[: place + 1])
            total[player] += _lead(selector, row, after, action, reference)
            total[player] -= _lead(selector, row, before, action, reference)
    contributions = dict(found.groups.select("group", "contribution").rows())
    assert set(contributions) == set(players)
    for player in players:
        assert contributions[player] == pytest.approx(total[player] / math.factorial(4), abs=1e-9)
    assert found.lead == pytest.approx(_lead(selector, row, set(players), action, reference), abs=1e-9)
    assert found.usual == pytest.approx(_lead(selector, row, set(), action, reference), abs=1e-9)


def test_contributions_add_up_to_what_was_predicted(world: World, selector: Selector) -> None:
    for at in range(0, world.features.height, 11):
        found = explain(selector, world.features[at])
        utilities = np.sort(selector.predict(world.features[at]).utilities[0])
        assert found.lead == pytest.approx(utilities[-1] - utilities[-2], abs=1e-9)
        assert found.groups["contribution"].sum() == pytest.approx(found.lead - found.usual, abs=1e-9)
        assert found.groups["contribution"].abs().is_sorted(descending=True)
        assert found.half_width is not None
        assert found.half_width > 0


def test_a_group_without_influence_gets_nothing(world: World, selector: Selector) -> None:
    inputs = np.array([name in FEATURE_GROUPS["kl"] for name in selector.feature_names] + [False] * len(selector.tasks))
    networks = {
        head: {layer: np.where(inputs[:, None], 0.0, w) if layer == "w1" else w for layer, w in weights.items()}
        for head, weights in selector.networks.items()
    }
    deaf = replace(selector, networks={h: {k: v.astype(np.float32) for k, v in w.items()} for h, w in networks.items()})
    for at in (0, 5, 9):
        contributions = dict(explain(deaf, world.features[at]).groups.select("group", "contribution").rows())
        assert contributions["kl"] == pytest.approx(0.0, abs=1e-15)
        assert max(map(abs, contributions.values())) > 1e-6


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_axioms(players: int, seed: int) -> None:
    """Efficiency, additivity, symmetry and the dummy property (Shapley 1953) on random games."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 2**players))
    values = shapley_values(first)
    assert values.sum() == pytest.approx(first[-1] - first[0])
    np.testing.assert_allclose(shapley_values(first + second), values + shapley_values(second), atol=1e-12)
    coalitions = np.arange(2**players)
    dummy = first[coalitions & ~1]  # player 0 changes nothing
    assert shapley_values(dummy)[0] == pytest.approx(0.0, abs=1e-12)
    sizes = np.array([int(c).bit_count() for c in coalitions])
    np.testing.assert_allclose(shapley_values(rng.normal(size=players + 1)[sizes]).std(), 0.0, atol=1e-12)


def test_reference_and_leading_features(world: World, selector: Selector) -> None:
    row = world.features[3]
    fixed = selector.actions[int(np.argmax(selector.targets.difference_mean))]
    other = next(a for a in selector.actions if a != fixed)
    found = explain(selector, row, action=other, reference="best_fixed")
    assert (found.action, found.reference) == (other, fixed)
    back = explain(selector, row, action=fixed, reference=str(other))
    assert back.lead == pytest.approx(-found.lead)
    for group, _, features in found.groups.iter_rows():
        assert len(features) == (0 if group == "task code" else 3)
        names = [n for n in selector.feature_names if n in FEATURE_GROUPS.get(group, ())]
        z = {n: (row[n][0] - selector.scaler.mean[i]) / selector.scaler.scale[i]
             for i, n in enumerate(selector.feature_names) if n in names}  # fmt: skip
        assert [f["feature"] for f in features] == sorted(z, key=lambda n: -abs(z[n]))[: len(features)]
        for feature in features:
            assert feature["deviations"] == pytest.approx(z[feature["feature"]])
            assert feature["value"] == row[feature["feature"]][0]
    assert found.as_dict()["groups"][0]["group"] == found.rows()[0][0]


def test_bad_input_is_said_in_one_sentence(world: World, selector: Selector) -> None:
    with pytest.raises(SelectionError, match="not of 2 rows"):
        explain(selector, world.features[:2])
    with pytest.raises(SelectionError, match="compared with itself"):
        explain(selector, world.features[0], action="slerp@0.5", reference="slerp@0.5")
    with pytest.raises(SelectionError, match=r"does not choose linear@0\.3"):
        explain(selector, world.features[0], action="linear@0.3")
    with pytest.raises(SelectionError, match="kl_ab_mean"):
        explain(selector, world.features[0].with_columns(pl.lit(float("inf")).alias("kl_ab_mean")))
