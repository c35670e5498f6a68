"""A selector on another catalog: behaviour is standardised there, weights stay as they are."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from selector_world import make_world

from simmerge_core.errors import SelectionError
from simmerge_core.features.columns import FEATURES
from simmerge_core.selector import Selector, SelectorConfig, adapted, train, training_rows
from simmerge_core.selector.adaptation import BEHAVIOUR_GROUPS
from simmerge_core.selector.block import block_of

QUICK = SelectorConfig(widths=(16,), learning_rates=(6e-3,), dropouts=(0.1,), members=3, epochs=8, patience=4)
BEHAVIOUR = [c.name for c in FEATURES if c.group in BEHAVIOUR_GROUPS]


@pytest.fixture(scope="module")
def world() -> tuple[Selector, pl.DataFrame]:
    made = make_world(per_domain=4)
    rows = training_rows(made.features, made.labels, actions=made.actions, metric="acc,none", item_set="A")
    return train(rows, config=QUICK), made.features


def test_other_levels_of_behaviour_change_nothing(world: tuple[Selector, pl.DataFrame]) -> None:
    selector, features = world
    rng = np.random.default_rng(0)
    moved = features.with_columns(
        (pl.col(name) * float(rng.uniform(0.2, 5.0)) + float(rng.normal())) for name in BEHAVIOUR
    )
    here, there = (adapted(selector, table).predict(table).utilities for table in (features, moved))
    np.testing.assert_allclose(there, here, atol=1e-9)
    assert not np.allclose(selector.predict(moved).utilities, selector.predict(features).utilities, atol=1e-3)


def test_only_behaviour_is_standardised(world: tuple[Selector, pl.DataFrame]) -> None:
    selector, features = world
    scaler, before = adapted(selector, features).scaler, selector.scaler
    block = block_of(features, selector.feature_names)
    for i, name in enumerate(selector.feature_names):
        column = features[name].cast(pl.Float64).to_numpy()
        if name in BEHAVIOUR:
            assert scaler.mean[i] == pytest.approx(column.mean())
            assert scaler.scale[i] == pytest.approx(column.std())
        else:
            assert (scaler.mean[i], scaler.scale[i]) == (before.mean[i], before.scale[i])
    assert scaler.tasks == before.tasks
    assert len(block) == features.height


def test_a_constant_feature_keeps_its_scale_and_nothing_is_no_catalog(world: tuple[Selector, pl.DataFrame]) -> None:
    selector, features = world
    flat = features.with_columns(pl.lit(0.5).alias("kl_ab_mean"))
    at = selector.feature_names.index("kl_ab_mean")
    scaler = adapted(selector, flat).scaler
    assert (scaler.mean[at], scaler.scale[at]) == (0.5, selector.scaler.scale[at])
    with pytest.raises(SelectionError, match="no pairs to standardise"):
        adapted(selector, features.head(0))


def test_the_order_of_pairs_and_repeated_pairs_change_no_byte(world: tuple[Selector, pl.DataFrame]) -> None:
    selector, features = world
    turned = pl.concat([features.reverse(), features.head(5)])
    assert adapted(selector, turned).key == adapted(selector, features).key


def test_the_groups_asked_for_are_those_standardised(world: tuple[Selector, pl.DataFrame]) -> None:
    selector, features = world
    scaler = adapted(selector, features, groups=["weight"]).scaler
    group = {c.name: c.group for c in FEATURES}
    own = np.array([group[name] == "weight" for name in selector.feature_names])
    assert own.any()
    np.testing.assert_array_equal(scaler.mean[~own], selector.scaler.mean[~own])
    expected = [
        features[n].cast(pl.Float64).mean() for n, mine in zip(selector.feature_names, own, strict=True) if mine
    ]
    np.testing.assert_allclose(scaler.mean[own], expected, atol=1e-12)  # that of a log ratio is 0 but for rounding
