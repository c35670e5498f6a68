"""Explanations of plans: they are about what the search predicted."""

from __future__ import annotations

import numpy as np
import pytest
from selector_world import World
from test_plan_search import Reference

from simmerge_core.errors import SelectionError
from simmerge_core.planning import explain_plan, search
from simmerge_core.selector import Selector, explain


@pytest.mark.parametrize(
    ("tasks", "combine"), [(["math"], "mean"), (["math", "rag"], "mean"), (["math", "rag"], "min")]
)
def test_leads_are_those_of_the_search(
    plan_world: World, plan_selector: Selector, tasks: list[str], combine: str
) -> None:
    """Against the brute-force reference of the search's own tests: every step's best action over the second best."""
    reference = Reference(plan_selector, plan_world)
    ids = sorted(plan_world.domains)
    best = search(plan_selector, plan_world.features, ids, tasks, k=3, top=1, combine=combine).row(0, named=True)
    steps = explain_plan(plan_selector, plan_world.features, best["order"], best["actions"], tasks, combine=combine)
    shares = {best["order"][0]: 1.0}
    for step, added, action in zip(steps, best["order"][1:], best["actions"], strict=True):
        parts = np.array([reference.step(shares, added, task) for task in tasks])
        utilities = parts.mean(axis=0) if combine == "mean" else parts.min(axis=0)
        assert str(step.action) == action == reference.texts[int(utilities.argmax())]
        second, first = np.sort(utilities)[-2:]
        assert step.lead == pytest.approx(first - second, abs=1e-9)
        assert utilities[reference.texts.index(str(step.reference))] == pytest.approx(second, abs=1e-9)
        assert step.groups["contribution"].sum() == pytest.approx(step.lead - step.usual, abs=1e-9)
        assert (step.half_width is None) == (len(tasks) > 1)
        alpha = step.action.alpha
        shares = {**{m: w * (1 - alpha) for m, w in shares.items()}, added: alpha}


def test_a_plan_of_two_is_explained_as_its_row(plan_world: World, plan_selector: Selector) -> None:
    best = search(plan_selector, plan_world.features, sorted(plan_world.domains), "code", k=2, top=1).row(0, named=True)
    assert plan_world.domains[best["order"][0]] == "code"  # the expert first, as the row shows it
    rows = {(r["a"], r["b"]): i for i, r in enumerate(plan_world.features.to_dicts()) if r["task"] == "code"}
    row = plan_world.features[rows[tuple(best["order"])]]
    (step,) = explain_plan(plan_selector, plan_world.features, best["order"], best["actions"], "code")
    expected = explain(plan_selector, row)
    assert step.lead == pytest.approx(expected.lead)
    assert step.half_width == pytest.approx(expected.half_width)
    assert step.rows() == expected.rows()


def test_unknown_parts_are_named(plan_world: World, plan_selector: Selector) -> None:
    with pytest.raises(SelectionError, match="ghost-01"):
        explain_plan(plan_selector, plan_world.features, ["math-00", "ghost-01"], ["slerp@0.5"], "math")
    with pytest.raises(SelectionError, match=r"does not choose linear@0\.3"):
        explain_plan(plan_selector, plan_world.features, ["math-00", "code-00"], ["linear@0.3"], "math")
