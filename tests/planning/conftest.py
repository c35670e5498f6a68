"""The synthetic world of the selector's tests, with a small trained selector."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "selector"))

from selector_world import World, make_world

from simmerge_core.selector import Selector, SelectorConfig, train, training_rows

EXTENDED = ("linear@0.5", "slerp@0.5", "ties@0.5", "slerp@0.3", "slerp@0.7")
QUICK = SelectorConfig(widths=(16,), learning_rates=(6e-3,), dropouts=(0.1,), members=3, epochs=15)


@pytest.fixture(scope="session")
def plan_world() -> World:
    return make_world(per_domain=3, actions=EXTENDED, seed=1, tasks=("math", "code", "rag", "chat"))


@pytest.fixture(scope="session")
def plan_selector(plan_world: World) -> Selector:
    rows = training_rows(plan_world.features, plan_world.labels, actions=EXTENDED)
    return train(rows, config=QUICK, seed=0)
