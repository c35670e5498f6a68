"""Search against brute force written without any of its parts."""

from __future__ import annotations

from itertools import combinations, permutations, product

import numpy as np
import polars as pl
import pytest
from selector_world import World

from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import parse_action
from simmerge_core.planning import search
from simmerge_core.selector import MODELS, Selector, training_rows
from simmerge_core.tables import MERGE_PLANS


class Reference:
    """Scores one plan at a time from the feature table, by App. D and §2.3.2 as they are written."""

    def __init__(self, selector: Selector, world: World, *, orientation: str = "expert_first") -> None:
        self.selector, self.world, self.orientation = selector, world, orientation
        wanted = ["task", "a", "b", *selector.feature_names]
        self.pairs = {(r[0], r[1], r[2]): np.array(r[3:]) for r in world.features.select(wanted).iter_rows()}
        self.texts = [str(a) for a in selector.actions]
        self.mirror = [self.texts.index(str(a.mirrored())) for a in selector.actions]
        self.memory: dict[tuple[object, ...], np.ndarray] = {}

    def predict(self, task: str, x: np.ndarray) -> np.ndarray:
        row = dict(zip(self.selector.feature_names, x.tolist(), strict=True))
        frame = pl.DataFrame([{"a": "p", "b": "q", "task": task, "a_domain": "", "b_domain": "", **row}])
        return self.selector.predict(frame).utilities[0]

    def step(self, shares: dict[str, float], added: str, task: str) -> np.ndarray:
        key = (tuple(sorted(shares.items())), added, task)
        if key not in self.memory:
            left = sum(w * self.pairs[task, m, added] for m, w in shares.items())
            right = sum(w * self.pairs[task, added, m] for m, w in shares.items())
            has = any(self.world.domains[m] == task for m in shares)
            turned = self.predict(task, right)[self.mirror]
            straight = self.predict(task, left)
            if self.orientation == "both":
                self.memory[key] = (turned + straight) / 2
            else:
                self.memory[key] = turned if self.world.domains[added] == task and not has else straight
        return self.memory[key]

    def plan(
        self, order: tuple[str, ...], tasks: list[str], combine: str, sequence: tuple[int, ...] | None = None
    ) -> tuple[list[str], list[float]]:
        shares, actions, values = {order[0]: 1.0}, [], []
        for number, added in enumerate(order[1:]):
            parts = np.array([self.step(shares, added, t) for t in tasks])
            utilities = np.round(parts.mean(axis=0) if combine == "mean" else parts.min(axis=0), 12)
            best = int(utilities.argmax()) if sequence is None else sequence[number]
            alpha = self.selector.actions[best].alpha
            shares = {**{m: w * (1 - alpha) for m, w in shares.items()}, added: alpha}
            actions.append(self.texts[best])
            values.append(float(utilities[best]))
        return actions, values


def _orders(
    world: World, pool: list[str], tasks: list[str], k: int, require: tuple[str, ...] = ()
) -> list[tuple[str, ...]]:
    out = []
    for subset in combinations(sorted(pool), k):
        domains = [world.domains[c] for c in subset]
        if len(set(domains)) < k or any(domains.count(t) != 1 for t in tasks) or not set(require) <= set(subset):
            continue
        for order in permutations(subset):
            ranks = [tasks.index(world.domains[c]) if world.domains[c] in tasks else len(tasks) for c in order[:2]]
            if (ranks[0], order[0]) < (ranks[1], order[1]):
                out.append(order)
    return out


@pytest.mark.parametrize(
    ("tasks", "combine", "k", "aggregate", "orientation"),
    [
        (["math"], "mean", 2, "last", "expert_first"),
        (["math"], "mean", 3, "last", "expert_first"),
        (["math", "rag"], "min", 3, "mean", "expert_first"),
        (["rag", "code"], "mean", 3, "sum", "both"),
        (["chat"], "mean", 4, "last", "expert_first"),
    ],
)
def test_exhaustive_equals_brute_force(
    plan_world: World, plan_selector: Selector, tasks: list[str], combine: str, k: int, aggregate: str, orientation: str
) -> None:
    pool = [c for c in sorted(plan_world.domains) if not c.endswith("2")] if k > 3 else sorted(plan_world.domains)[:10]
    pool = pool[:6] + pool[-2:] if k == 4 else pool
    reference = Reference(plan_selector, plan_world, orientation=orientation)
    scores = {}
    for order in _orders(plan_world, pool, tasks, k):
        actions, values = reference.plan(order, tasks, combine)
        whole = {"last": values[-1], "mean": float(np.mean(values)), "sum": sum(values)}[aggregate]
        scores[order] = (whole, actions, values)
    found = search(
        plan_selector,
        plan_world.features,
        pool,
        tasks,
        k=k,
        top=10**6,
        combine=combine,
        aggregate=aggregate,
        orientation=orientation,
    )
    assert found.height == len(scores) > 0
    for row in found.iter_rows(named=True):
        whole, actions, values = scores[tuple(row["order"])]
        assert row["actions"] == actions
        assert row["predicted_utility"] == pytest.approx(whole, abs=1e-9)
        assert row["step_utilities"] == pytest.approx(values, abs=1e-9)
    assert found["predicted_utility"].is_sorted(descending=True)
    assert found["rank"].to_list() == list(range(1, found.height + 1))


def test_joint_enumeration_finds_the_best_sequence_of_all(plan_world: World, plan_selector: Selector) -> None:
    pool = sorted(plan_world.domains)[:9]
    reference = Reference(plan_selector, plan_world)
    best = max(
        reference.plan(order, ["math"], "mean", sequence)[1][-1]
        for order in _orders(plan_world, pool, ["math"], 3)
        for sequence in product(range(len(plan_selector.actions)), repeat=2)
    )
    found = search(plan_selector, plan_world.features, pool, "math", k=3, top=1, operators="joint")
    assert found["predicted_utility"][0] == pytest.approx(best, abs=1e-9)
    greedy = search(plan_selector, plan_world.features, pool, "math", k=3, top=1)
    assert best >= greedy["predicted_utility"][0] - 1e-12


@pytest.mark.parametrize("k", [2, 3, 4])
def test_beam_is_near_the_optimum(plan_world: World, plan_selector: Selector, k: int) -> None:
    ids = sorted(plan_world.domains)
    arguments = {"k": k, "top": 5}
    exact = search(plan_selector, plan_world.features, ids, "code", method="exhaustive", **arguments)
    near = search(plan_selector, plan_world.features, ids, "code", method="beam", beam=16, **arguments)
    assert set(exact["search"]) == {"exhaustive"}
    assert set(near["search"]) == {"beam"}
    assert near["predicted_utility"][0] >= 0.99 * exact["predicted_utility"][0]
    assert near["predicted_utility"][0] <= exact["predicted_utility"][0] + 1e-12


def test_auto_says_which_search_it_was(plan_world: World, plan_selector: Selector) -> None:
    ids = sorted(plan_world.domains)
    assert search(plan_selector, plan_world.features, ids, "code", k=3, top=1)["search"][0] == "exhaustive"
    assert search(plan_selector, plan_world.features, ids, "code", k=3, top=1, limit=5)["search"][0] == "beam"


def test_output_is_the_table_of_plans(plan_world: World, plan_selector: Selector) -> None:
    found = search(plan_selector, plan_world.features, sorted(plan_world.domains), ["code", "rag"], k=3, combine="min")
    MERGE_PLANS.validated(found.with_columns(pl.lit(plan_selector.key).alias("selector_key")), where="test")
    assert found.height == 10
    assert (found["uncertainty"] > 0).all()
    np.testing.assert_allclose(found["uncertainty"], found["step_uncertainties"].list.last())


def test_required_checkpoints_and_domains(plan_world: World, plan_selector: Selector) -> None:
    ids = sorted(plan_world.domains)
    found = search(plan_selector, plan_world.features, ids, "code", k=3, top=500, require=["rag-01"])
    for order in found["order"].to_list():
        domains = [plan_world.domains[c] for c in order]
        assert "rag-01" in order
        assert domains.count("code") == 1
        assert len(set(domains)) == 3
    loose = search(plan_selector, plan_world.features, ids, "code", k=3, top=10**5, one_per_domain=False)
    assert any(len({plan_world.domains[c] for c in order}) == 2 for order in loose["order"].to_list())
    assert all([plan_world.domains[c] for c in order].count("code") == 1 for order in loose["order"].to_list())
    without = [c for c in ids if plan_world.domains[c] != "code"]
    assert search(plan_selector, plan_world.features, without, "code", k=2, top=1).height == 1


def test_actions_that_do_not_mirror_are_scored_as_ordered(plan_world: World, plan_selector: Selector) -> None:
    pool = ["math-00", "code-00"]
    one_sided = search(plan_selector, plan_world.features, pool, "math", k=2, actions=["slerp@0.3"])
    assert sorted(map(tuple, one_sided["order"].to_list())) == [("code-00", "math-00"), ("math-00", "code-00")]
    closed = search(plan_selector, plan_world.features, pool, "math", k=2, actions=["slerp@0.3", "slerp@0.7"])
    assert closed["order"].to_list() == [["math-00", "code-00"]]


def test_any_model_can_rank(plan_world: World) -> None:
    rows = training_rows(plan_world.features, plan_world.labels, actions=plan_world.actions)
    ids = sorted(plan_world.domains)
    for name in ("best_fixed", "best_fixed_per_task", "random", "norm_ratio", "ridge"):
        found = search(MODELS[name](rows), plan_world.features, ids, "math", k=3, top=4)
        assert found.height == 4
    fixed = MODELS["best_fixed"](rows)
    found = search(fixed, plan_world.features, ids, "math", k=3, top=4)
    assert set(found["actions"].explode()) == {str(parse_action(fixed.action))}


def test_bad_requests_are_said_in_one_sentence(plan_world: World, plan_selector: Selector) -> None:
    ids = sorted(plan_world.domains)
    features = plan_world.features

    def ask(
        pool: list[str] = ids, task: str = "math", frame: pl.DataFrame = features, **options: object
    ) -> pl.DataFrame:
        return search(plan_selector, frame, pool, task, **{"k": 3, **options})  # type: ignore[arg-type]

    with pytest.raises(SelectionError, match="ghost-01"):
        ask([*ids, "ghost-01"])
    with pytest.raises(SelectionError, match="poetry"):
        ask(task="poetry")
    with pytest.raises(SelectionError, match="k = 40"):
        ask(k=40)
    with pytest.raises(SelectionError, match="No set of k = 5"):
        ask(k=5)
    with pytest.raises(SelectionError, match="twice"):
        ask([*ids, ids[0]])
    with pytest.raises(SelectionError, match="not in the pool"):
        ask(ids[:9], require=[ids[11]])
    with pytest.raises(SelectionError, match="breadcrumbs"):
        ask(actions=["breadcrumbs"])
    hole = features.filter(~((pl.col("a") == "code-01") & (pl.col("b") == "rag-02")))
    with pytest.raises(SelectionError, match=r"\(code-01, rag-02\) on math"):
        ask(frame=hole)
    for bad in (
        {"aggregate": "max"},
        {"method": "magic"},
        {"orientation": "up"},
        {"operators": "all"},
        {"combine": "max"},
        {"top": 0},
    ):
        with pytest.raises(SelectionError):
            ask(**bad)
