"""Multi-way plans: canonical form, exact random orders, honest oracle, and the plans that are still to be executed."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import polars as pl
import pytest
from analysis_world import DOMAINS, World
from hypothesis import given
from hypothesis import strategies as st

from simmerge_core.analysis import multiway
from simmerge_core.analysis.protocol import Direction
from simmerge_core.analysis.scores import counted_metrics, standalone
from simmerge_core.plans import Plan, plan_of

AB = Direction("A", "B")
PAPER = ("linear@0.5", "slerp@0.5", "ties@0.5")


def configurations(world: World, plans: pl.DataFrame | None = None) -> list[multiway.Configuration]:
    return multiway.configurations(
        world.plans if plans is None else plans,
        domains=world.catalog.domains,
        counted=counted_metrics(world.catalog),
    )


def fixed_chooser(actions: tuple[str, ...] = ("slerp@0.5", "ties@0.5")) -> multiway.Chooser:
    def choose(task: str, members: tuple[str, ...]) -> multiway.Choice:
        last = [m for m in members if DOMAINS[m] == task]
        first = sorted(m for m in members if DOMAINS[m] != task)
        return multiway.Choice(plan_of([*first, *last], list(actions)), predicted=0.5)

    return choose


def summary(world: World, found: list[multiway.Configuration], chooser: multiway.Chooser, action: str) -> dict:
    return multiway.summarise(
        found,
        {AB: chooser},
        best_fixed={AB: action},
        actions=PAPER,
        alone=standalone(world.standalone, counted=counted_metrics(world.catalog)),
        splits={},
        draws=200,
    )


@given(st.permutations(["a", "b", "c"]), st.lists(st.sampled_from(["linear@0.3", "slerp@0.5"]), min_size=2, max_size=2))
def test_canonical_joins_exactly_the_plans_that_swap_the_first_two(order: list[str], actions: list[str]) -> None:
    plan = plan_of(order, actions)
    swapped = Plan((order[1], order[0], order[2]), (plan.actions[0].mirrored(), plan.actions[1]))
    assert multiway.canonical(plan) == multiway.canonical(swapped)
    others = [plan_of(list(o), actions) for o in permutations(order) if o[2] != order[2]]
    assert all(multiway.canonical(other) != multiway.canonical(plan) for other in others)


def test_configurations_have_one_expert_and_every_executed_plan(world: World) -> None:
    found = configurations(world)
    assert len(found) == 4
    for configuration in found:
        assert DOMAINS[configuration.expert] == configuration.task
        assert len(configuration.auxiliaries) == 2
        assert len(configuration.utilities) == 27  # 3 orders up to the first swap, 3 × 3 operators


def looked_up(world: World, task: str, members: tuple[str, ...], item_set: str) -> dict[tuple, float]:
    """Utility by (set of the first two, last, actions), straight from the rows."""
    rows = world.plans.filter(
        (pl.col("task") == task)
        & (pl.col("item_set") == item_set)
        & (pl.col("configuration") == "+".join(sorted(members)))
    )
    return {(frozenset(r["order"][:2]), r["order"][2], tuple(r["actions"])): r["utility"] for r in rows.to_dicts()}


def test_every_method_equals_a_brute_force_over_the_rows(world: World) -> None:
    found = configurations(world)
    figures = summary(world, found, fixed_chooser(), "linear@0.5")["3"]
    wanted: dict[str, list[float]] = {}
    for c in found:
        a, b = (looked_up(world, c.task, c.members, s) for s in "AB")
        first, last, steps = frozenset(c.auxiliaries), c.expert, ("slerp@0.5", "ties@0.5")
        best = max(a, key=a.__getitem__)
        wanted.setdefault("simmerge", []).append(b[first, last, steps])
        wanted.setdefault("expert_last_best_fixed", []).append(b[first, last, ("linear@0.5",) * 2])
        orders = [b[frozenset(o[:2]), o[2], steps] for o in permutations(c.members)]
        wanted.setdefault("random_order", []).append(np.mean(orders))
        wanted.setdefault("random_plan", []).append(np.mean(list(b.values())))
        wanted.setdefault("oracle", []).append(b[best])
        wanted.setdefault("parent_expert", []).append(world.alone[c.expert, c.task, "B"])
        aux = np.mean([world.alone[x, c.task, "B"] for x in c.auxiliaries])
        wanted.setdefault("parent_auxiliary", []).append(aux)
        fixed = [b[frozenset(o[:2]), o[2], ("ties@0.5",) * 2] for o in permutations(c.members)]
        wanted.setdefault("random_order_ties", []).append(np.mean(fixed))
    for name, values in wanted.items():
        assert figures[name] == pytest.approx(np.mean(values)), name
    assert figures["configurations"] == figures["rows"] == 4
    assert figures["mean_predicted"] == 0.5
    gap = []
    for task in ("code", "math"):
        rows = [i for i, c in enumerate(found) if c.task == task]
        mean, expert, aux = (
            np.mean([wanted[n][i] for i in rows]) for n in ("simmerge", "parent_expert", "parent_auxiliary")
        )
        gap.append(100 * (mean - aux) / (expert - aux))
    assert figures["gap_closed"]["simmerge"] == pytest.approx(np.mean(gap))
    gain = figures["gain_over_expert_last_best_fixed"]["simmerge"]
    assert gain["value"] == pytest.approx(figures["simmerge"] - figures["expert_last_best_fixed"])


def test_learned_order_is_compared_with_the_mean_over_orders_of_the_same_operators() -> None:
    plan = plan_of(["a", "b", "c", "d"], ["linear", "slerp", "ties"])
    keys = multiway.same_operators(plan)
    assert len(keys) == 24
    assert len(set(keys)) == 12
    assert all(key[1] == ("linear@0.5", "slerp@0.5", "ties@0.5") for key in keys)


def test_missing_plans_are_named_and_their_configuration_is_left_out(world: World) -> None:
    chosen = fixed_chooser()
    gone = configurations(world)[0]
    key = multiway.canonical(chosen(gone.task, gone.members).plan)
    found = configurations(world)
    del found[0].utilities[key]
    figures = summary(world, found, chosen, "linear@0.5")["3"]
    assert (figures["rows"], figures["without_needed_plans"]) == (3, 1)
    needed = multiway.plans_needed(found, [chosen], best_fixed=["linear@0.5"])
    assert [(multiway.canonical(plan), task) for plan, task in needed] == [(key, gone.task)]
    assert multiway.plans_needed(configurations(world), [chosen], best_fixed=["linear@0.5"]) == []


def test_plans_with_other_actions_are_asked_for_with_all_their_orders(world: World) -> None:
    found = configurations(world)
    needed = multiway.plans_needed(found, [fixed_chooser(("slerp@0.3", "linear@0.5"))], best_fixed=["ties@0.5"])
    # The first step is no longer symmetric: each of the 6 orders of 4 configurations is a merge of its own.
    assert len(needed) == 24
    expected = {
        multiway.canonical(plan_of(list(o), ["slerp@0.3", "linear@0.5"]))
        for c in found
        for o in permutations(c.members)
    }
    assert {multiway.canonical(plan) for plan, _ in needed} == expected
    alone = multiway.plans_needed(
        found, [fixed_chooser(("slerp@0.3", "linear@0.5"))], best_fixed=["ties@0.5"], baselines=False
    )
    assert len(alone) == 4


def test_the_oracle_ignores_plans_outside_the_action_set(world: World) -> None:
    found = configurations(world)
    plain = summary(world, found, fixed_chooser(), "linear@0.5")["3"]
    for c, steps in product(found, (("slerp@0.3", "linear@0.5"),)):
        c.utilities[multiway.canonical(plan_of(list(c.members), list(steps)))] = {"A": 5.0, "B": 5.0}
    assert summary(world, found, fixed_chooser(), "linear@0.5")["3"]["oracle"] == plain["oracle"]
