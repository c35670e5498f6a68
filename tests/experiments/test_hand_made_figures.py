"""Figures of subsets, of ways to score plans and of the lead over rivals, from scores made by hand."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from simmerge_core.analysis import multiway
from simmerge_core.analysis.protocol import Direction
from simmerge_core.experiments.pairs import _lead
from simmerge_core.experiments.plan_variants import DEFAULT, SCORINGS, _scored
from simmerge_core.experiments.subsets import RIVALS, SELECTED, Request, _summary
from simmerge_core.plans import Plan, plan_of

AB, BA = Direction("A", "B"), Direction("B", "A")
NOISE = SimpleNamespace(draws=300, seed=3)
BEST_OF_FIVE, SAME_EXPERTS, FIXED, RANDOM, SINGLE = RIVALS


def _plan(*checkpoints: str) -> Plan:
    return plan_of(list(checkpoints), ["linear@0.5"] * (len(checkpoints) - 1))


TASKS = ("code", "math", "rag")
CHECKPOINTS = ("c1", "c2", "m1", "r1")
REQUESTS = [Request(tasks, d) for tasks in (("code", "math"), ("code", "rag"), TASKS) for d in (AB, BA)]


def _planned(request: Request) -> dict[str, list[Plan]]:
    last = {"math": "m1", "rag": "r1"}[request.tasks[1]] if len(request.tasks) == 2 else None
    tail = [last] if last else ["m1", "r1"]
    first, second, third = _plan("c1", *tail), _plan("c2", *tail), _plan(*reversed(tail), "c2")
    return {
        SELECTED: [first],
        BEST_OF_FIVE: [first, second, third],
        SAME_EXPERTS: [second],
        FIXED: [third],
        RANDOM: [first, second],
    }


@pytest.fixture(scope="module")
def drawn() -> tuple[dict[tuple[str, str, str], float], dict[tuple[str, str, str], float]]:
    """Scores of plans and of checkpoints alone, by (plan or checkpoint, task, item set)."""
    rng = np.random.default_rng(11)
    plans = sorted({str(p) for r in REQUESTS for several in _planned(r).values() for p in several})
    scores = {key: float(rng.uniform()) for key in product(plans, TASKS, "AB")}
    alone = {key: float(rng.uniform()) for key in product(CHECKPOINTS, TASKS, "AB")}
    return scores, alone


def _worth(request: Request, table: dict[tuple[str, str, str], float], what: str, items: str) -> float:
    return sum(table[what, task, items] for task in request.tasks) / len(request.tasks)


def _expected(
    request: Request, scores: dict[tuple[str, str, str], float], alone: dict[tuple[str, str, str], float]
) -> dict[str, float]:
    """What each method's choice is worth on the items that nothing was chosen from."""
    seen, scored = ("A", "B") if request.direction is AB else ("B", "A")
    methods = {name: [str(p) for p in plans] for name, plans in _planned(request).items()}
    tried = max(methods[BEST_OF_FIVE], key=lambda p: _worth(request, scores, p, seen))
    single = max(CHECKPOINTS, key=lambda c: _worth(request, alone, c, seen))
    found = {
        name: float(np.mean([_worth(request, scores, p, scored) for p in methods[name]]))
        for name in (SELECTED, SAME_EXPERTS, FIXED, RANDOM)
    }
    return found | {
        BEST_OF_FIVE: _worth(request, scores, tried, scored),
        SINGLE: _worth(request, alone, single, scored),
    }


@pytest.fixture(scope="module")
def subsets(drawn: tuple[dict[tuple[str, str, str], float], dict[tuple[str, str, str], float]]) -> Any:
    scores, alone = drawn
    stand_in: Any = SimpleNamespace(
        alone=alone, catalog=SimpleNamespace(checkpoint_ids=CHECKPOINTS), protocol=SimpleNamespace(noise=NOISE)
    )
    return _summary(stand_in, REQUESTS, [_planned(r) for r in REQUESTS], scores)


def test_subsets_are_worth_what_they_score_on_the_other_items(subsets: Any, drawn: Any) -> None:
    rows = {
        (row["tasks"], row["direction"], row["method"]): row["utility"] for row in subsets.rows.iter_rows(named=True)
    }
    assert len(rows) == len(REQUESTS) * 6
    for request in REQUESTS:
        for method, value in _expected(request, *drawn).items():
            assert rows["+".join(request.tasks), str(request.direction), method] == pytest.approx(value, abs=1e-6)
    chosen = subsets.rows.filter(pl.col("method") == BEST_OF_FIVE)["chosen"].to_list()
    taken = subsets.rows.filter(pl.col("method") == SELECTED)["chosen"].to_list()
    assert chosen != taken  # some are better on the items seen than the one ranked first


def test_subset_figures_are_means_and_gains_over_requests_of_one_size(subsets: Any, drawn: Any) -> None:
    for k, count in ((2, 4), (3, 2)):
        values = [_expected(r, *drawn) for r in REQUESTS if len(r.tasks) == k]
        section = subsets.figures[str(k)]
        assert section["requests"] == len(values) == count
        assert set(section["utility"]) == {SELECTED, *RIVALS}
        assert set(section["gain_of_selector"]) == set(RIVALS)
        for method in (SELECTED, *RIVALS):
            mean = np.mean([v[method] for v in values])
            assert section["utility"][method]["value"] == pytest.approx(mean)
            if method != SELECTED:
                gain = np.mean([v[SELECTED] - v[method] for v in values])
                assert section["gain_of_selector"][method]["value"] == pytest.approx(gain)


def test_subset_intervals_draw_tasks_again(subsets: Any, drawn: Any) -> None:
    """A request counts as often as all its tasks were drawn, multiplied."""
    here = [r for r in REQUESTS if len(r.tasks) == 2]
    gains = [v[SELECTED] - v[RANDOM] for v in (_expected(r, *drawn) for r in here)]
    found = []
    for counts in np.random.default_rng(NOISE.seed).multinomial(3, [1 / 3] * 3, size=NOISE.draws):
        weights = [int(np.prod([counts[TASKS.index(task)] for task in r.tasks])) for r in here]
        if sum(weights):
            found.append(sum(w * g for w, g in zip(weights, gains, strict=True)) / sum(weights))
    interval = subsets.figures["2"]["gain_of_selector"][RANDOM]
    np.testing.assert_allclose(interval["ci95"], np.quantile(found, [0.025, 0.975]), atol=1e-12)
    assert interval["share_of_draws_defined"] == pytest.approx(len(found) / NOISE.draws)
    assert found
    assert len(found) < NOISE.draws


PLANS = {
    name: [
        plan_of(["c1", "m1", "r1"], [operator, "linear@0.5"]),
        plan_of(["c2", "m1", "r1"], [operator, "linear@0.5"]),
        plan_of(["c1", "m1", "r1"], ["linear@0.5", operator]),
    ]
    for name, operator in zip(
        [s.name for s in SCORINGS],
        [f"{o}@{alpha}" for o in ("linear", "slerp", "ties", "dare") for alpha in ("0.5", "0.3")],
        strict=True,
    )
}


def _configurations(rng: np.random.Generator) -> list[multiway.Configuration]:
    """On code, code and math; every scoring's plan is executed on each, a few others too."""
    found = []
    for number, (task, expert, others) in enumerate(
        [("code", "c1", ("m1", "r1")), ("code", "c2", ("m1", "r1")), ("math", "m1", ("c1", "r1"))]
    ):
        table = {
            multiway.canonical(PLANS[s.name][number]): {"A": float(rng.uniform()), "B": float(rng.uniform())}
            for s in SCORINGS
        }
        found.append(multiway.Configuration(task, expert, others, table))
    return found


def _variant_stand_in(rng: np.random.Generator) -> Any:
    alone = {
        (c, task, items): float(rng.uniform(0.7, 0.9) if c[0] == task[0] else rng.uniform(0.1, 0.3))
        for c, task, items in product(CHECKPOINTS, TASKS, "AB")
    }
    choices = SimpleNamespace(min_gap=0.02)
    return SimpleNamespace(along=(AB, BA), alone=alone, protocol=SimpleNamespace(noise=NOISE, choices=choices))


def _choosers() -> dict[tuple[str, Direction], multiway.Chooser]:
    places = {("code", "c1"): 0, ("code", "c2"): 1, ("math", "m1"): 2}

    def chooser(name: str) -> multiway.Chooser:
        return lambda task, members: multiway.Choice(PLANS[name][places[str(task), members[0]]])

    return {(s.name, d): chooser(s.name) for s in SCORINGS for d in (AB, BA)}


def _closed(stand_in: Any, rows: list[tuple[multiway.Configuration, str, float]]) -> float:
    """Percent of the gap per task, of the task's mean scores; then the mean over tasks."""
    shares = []
    for task in sorted({c.task for c, _, _ in rows}):
        here = [(c, items, value) for c, items, value in rows if c.task == task]
        value = np.mean([v for _, _, v in here])
        expert = np.mean([stand_in.alone[c.expert, task, items] for c, items, _ in here])
        others = np.mean([np.mean([stand_in.alone[x, task, items] for x in c.auxiliaries]) for c, items, _ in here])
        shares.append(100.0 * (value - others) / (expert - others))
    return float(np.mean(shares))


@pytest.mark.parametrize("lacking", [False, True])
def test_scorings_are_compared_on_configurations_that_all_of_them_were_executed_on(lacking: bool) -> None:
    rng = np.random.default_rng(6)
    stand_in, found = _variant_stand_in(rng), _configurations(rng)
    kept = [(c, items) for items in ("B", "A") for c in found]
    if lacking:  # one scoring's plan was not scored on B on one configuration, another's not executed on another
        del found[0].utilities[multiway.canonical(PLANS[SCORINGS[2].name][0])]["B"]
        del found[1].utilities[multiway.canonical(PLANS[SCORINGS[4].name][1])]
        kept = [(c, items) for c, items in kept if c is found[2] or (c is found[0] and items == "A")]
    figures, records = _scored(stand_in, found, _choosers())
    assert figures["configurations"] == 3
    values = {
        s.name: [(c, items, c.utilities[multiway.canonical(PLANS[s.name][found.index(c)])][items]) for c, items in kept]
        for s in SCORINGS
    }
    for name, rows in values.items():
        assert figures["utility"][name]["value"] == pytest.approx(np.mean([v for _, _, v in rows]))
        assert figures["gap_closed"][name]["value"] == pytest.approx(_closed(stand_in, rows))
        if name != DEFAULT:
            gains = [v - d for (_, _, v), (_, _, d) in zip(rows, values[DEFAULT], strict=True)]
            assert figures["gain_over_default"][name]["value"] == pytest.approx(np.mean(gains))
    assert set(figures["gain_over_default"]) == {s.name for s in SCORINGS} - {DEFAULT}
    expected = {
        (name, {"B": "A->B", "A": "B->A"}[items], 3, c.task, c.expert, "+".join(c.auxiliaries),
         str(PLANS[name][found.index(c)]), value)
        for name, rows in values.items()
        for c, items, value in rows
    }  # fmt: skip
    assert set(records) == expected
    assert len(records) == len(expected)


def test_the_lead_is_over_the_strongest_method_that_chooses_an_action() -> None:
    def gain(value: float) -> dict[str, Any]:
        return {"value": value, "ci95": [value - 0.1, value + 0.1]}

    references = ("parent_expert", "parent_auxiliary", "keep_better_parent", "base", "oracle", "oracle_same_items")
    rivals = {"ridge": gain(0.03), "best_fixed": gain(0.02), "mlp": gain(0.05)}
    section = {"gain_over": {**rivals, **dict.fromkeys(references, gain(-1.0)), "without_task_code": gain(-0.5)}}
    assert _lead(section) == {"method": "best_fixed", **gain(0.02)}
    section["gain_over"]["mlp"] = gain(-0.01)  # a rival that is ahead is the strongest
    assert _lead(section) == {"method": "mlp", **gain(-0.01)}
    assert rivals["mlp"] == gain(0.05)
