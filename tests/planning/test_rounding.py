"""The bound on float32's error against float32 itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selector_world import World

from simmerge_core.planning import pair_table, target_of
from simmerge_core.planning.estimate import estimator_of
from simmerge_core.planning.rounding import Range, gamma
from simmerge_core.planning.scoring import Prefixes, Scorer
from simmerge_core.selector import Selector, SelectorConfig, train, training_rows


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1e-3, 1.0, 50.0]))
def test_no_float32_network_is_further_off_than_the_bound(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    shapes = ((20, 12), (12, 12), (12, 3))
    layers = [(size * rng.normal(size=s).astype(np.float32), rng.normal(size=s[1]).astype(np.float32)) for s in shapes]
    low = rng.normal(size=20)
    high = low + rng.uniform(0.0, 3.0, size=20)
    x = rng.uniform(low, high, size=(200, 20))
    bound = Range(low, high, gamma(1) * np.maximum(np.abs(low), np.abs(high)))
    exact, fast = x, x.astype(np.float32)
    for number, (weight, bias) in enumerate(layers):
        exact, fast = exact @ weight.astype(np.float64) + bias, fast @ weight + bias
        bound = bound.linear(weight.astype(np.float64), bias.astype(np.float64))
        if number < 2:
            exact, fast, bound = np.maximum(exact, 0), np.maximum(fast, 0), bound.relu()
        assert fast.dtype == np.float32
        assert (exact >= bound.low - 1e-9 * size**3).all()
        assert (exact <= bound.high + 1e-9 * size**3).all()
        assert (np.abs(exact - fast) <= bound.error).all()
    assert (bound.error > 0).all()


@pytest.mark.parametrize("heads", ["separate", "shared"])
@pytest.mark.parametrize(
    ("tasks", "combine", "orientation", "actions"),
    [
        (("math",), "mean", "expert_first", None),
        (("math", "rag"), "min", "both", None),
        (("chat", "code"), "mean", "expert_first", ("slerp@0.7", "ties@0.5", "slerp@0.3")),
        (("rag",), "mean", "expert_first", ("slerp@0.3", "linear@0.5")),  # does not mirror: as ordered
    ],
)
def test_estimates_are_within_the_error_they_state(
    plan_world: World, heads: str, tasks: tuple[str, ...], combine: str, orientation: str, actions: tuple[str, ...]
) -> None:
    selector = _trained(plan_world, heads)
    ids = sorted(plan_world.domains)
    table = pair_table(plan_world.features, checkpoints=ids, tasks=tasks, feature_names=selector.feature_names)
    chosen = [a for a in selector.actions if actions is None or str(a) in actions]
    scorer = Scorer(selector, table, target_of(tasks, combine=combine), actions=chosen, orientation=orientation)
    estimator = estimator_of(scorer, k=4)
    assert estimator is not None
    rng = np.random.default_rng(0)
    for size in (1, 2, 3):
        orders = np.array([rng.permutation(len(ids))[: size + 1] for _ in range(300)])  # more than one piece
        weights = rng.dirichlet(np.ones(size), size=300)
        prefixes = Prefixes(orders[:, :size], weights, np.zeros((300, size - 1), dtype=np.int64), np.zeros((300, 0)))
        exact, fast = scorer.step(prefixes, orders[:, -1]), estimator.step(prefixes, orders[:, -1])
        off = np.abs(exact - fast).max()
        assert 0 < off <= estimator.error < 0.01
        assert off < 1e-5  # and it is the same computation, not merely one within the bound


_TRAINED: dict[str, Selector] = {}


def _trained(world: World, heads: str) -> Selector:
    """One selector per kind of heads; `clip` is low, so that clipping matters."""
    if heads not in _TRAINED:
        config = SelectorConfig(
            widths=(16,), learning_rates=(6e-3,), dropouts=(0.1,), members=3, epochs=8, heads=heads, clip=1.0
        )
        actions = [str(a) for a in world.actions]
        _TRAINED[heads] = train(training_rows(world.features, world.labels, actions=actions), config=config, seed=0)
    return _TRAINED[heads]
