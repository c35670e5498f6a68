"""Plans judged by the mean over their parents' tasks: what is asked for, where, and every figure by hand."""

from __future__ import annotations

import json
from itertools import permutations, product
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from analysis_world import DOMAINS, TableSelector, World, benchmark_row, make_catalog

from simmerge_core import analysis
from simmerge_core.analysis import multiway, reporting
from simmerge_core.analysis.protocol import Direction
from simmerge_core.analysis.scores import counted_metrics
from simmerge_core.operators.actions import ACTION_SETS
from simmerge_core.plans import plan_of
from simmerge_core.tables import DataRoot

AB, BA = Direction("A", "B"), Direction("B", "A")
PAPER = tuple(map(str, ACTION_SETS["paper"]))
EXTENDED = tuple(map(str, ACTION_SETS["extended"]))
MEMBERS = ("code-1", "math-1", "rag-1")
TASKS = ("code", "math", "rag")
STEPS = ("norm_balanced@0.5", "slerp@0.3")
FIXED = "task_arithmetic@0.5"


def rows_of(order: tuple[str, ...], steps: tuple[str, ...], task: str, a: float, b: float) -> list[dict[str, Any]]:
    about = {"configuration": "+".join(MEMBERS), "k": 3, "order": list(order), "actions": list(steps)}
    return [benchmark_row(u, s, task, **about, recipe_key=f"{order}{steps}") for s, u in (("A", a), ("B", b))]


def designed_on(task: str) -> list[dict[str, Any]]:
    """The 27 merges of the paper's actions."""
    orders = [order for order in permutations(MEMBERS) if order[0] < order[1]]
    return [
        row for order in orders for steps in product(PAPER, repeat=2) for row in rows_of(order, steps, task, 0.9, 0.9)
    ]


def added() -> list[dict[str, Any]]:
    """Per last checkpoint: utility of the chosen operators on (code, math, rag), items A and then B."""
    chosen = {
        ("code-1", "math-1", "rag-1"): ((0.3, 0.3, 0.6), (0.2, 0.4, 0.6)),  # means 0.4 and 0.4
        ("code-1", "rag-1", "math-1"): ((0.6, 0.6, 0.6), (0.1, 0.2, 0.6)),  # 0.6 and 0.3
        ("math-1", "rag-1", "code-1"): ((0.1, 0.1, 0.1), (0.7, 0.8, 0.9)),  # 0.1 and 0.8
    }
    rows = []
    for order, (on_a, on_b) in chosen.items():
        for task, a, b in zip(TASKS, on_a, on_b, strict=True):
            rows += rows_of(order, STEPS, task, a, b)
    for task, b in zip(TASKS, (0.3, 0.3, 0.9), strict=True):  # 0.2 and 0.5
        rows += rows_of(("math-1", "rag-1", "code-1"), (FIXED, FIXED), task, 0.2, b)
    return rows


def found_in(rows: list[dict[str, Any]]) -> list[multiway.Configuration]:
    catalog = make_catalog()
    return multiway.configurations(pl.DataFrame(rows), domains=catalog.domains, counted=counted_metrics(catalog))


def joint_of(found: list[multiway.Configuration]) -> list[multiway.Configuration]:
    own = multiway.of_own_design(found, PAPER)
    return multiway.over_parents(found, own, domains=DOMAINS, tasks=TASKS)


def chooser(target: str | tuple[str, ...], members: tuple[str, ...]) -> multiway.Choice:
    assert target == TASKS
    return multiway.Choice(plan_of(["code-1", "math-1", "rag-1"], list(STEPS)), predicted=0.45)


def test_a_configuration_counts_for_the_task_of_its_design_only() -> None:
    found = found_in([*designed_on("code"), *added()])
    assert [c.task for c in found] == ["code", "math", "rag"]
    assert [(c.task, c.expert) for c in multiway.of_own_design(found, PAPER)] == [("code", "code-1")]


def test_utilities_are_means_over_plans_that_every_task_has() -> None:
    (joint,) = joint_of(found_in([*designed_on("code"), *added()]))
    assert joint.targets == (("code", "code-1"), ("math", "math-1"), ("rag", "rag-1"))
    assert len(joint.utilities) == 4  # none of the 27 on code alone
    last = multiway.canonical(plan_of(["rag-1", "math-1", "code-1"], list(STEPS)))
    assert joint.utilities[last] == {"A": pytest.approx(0.1), "B": pytest.approx(0.8)}


def test_every_figure_by_hand() -> None:
    alone = {(c, t, s): 0.8 if DOMAINS[c] == t else 0.2 for c, t, s in product(MEMBERS, TASKS, "AB")}
    alone["rag-1", "code", "B"] = 0.5  # auxiliaries on code: 0.35; on math and rag: 0.2
    figures = multiway.summarise(
        joint_of(found_in([*designed_on("code"), *added()])),
        {AB: chooser},
        best_fixed={AB: FIXED},
        actions=EXTENDED,
        alone=alone,
        splits={},
        draws=50,
    )["3"]
    assert figures["target"] == "parents_tasks"
    assert (figures["configurations"], figures["rows"], figures["executed_plans"]) == (1, 1, 4)
    assert figures["simmerge"] == pytest.approx(0.4)
    assert figures["random_order"] == pytest.approx((0.4 + 0.3 + 0.8) / 3)
    assert figures["expert_last_best_fixed"] == pytest.approx(0.5)
    assert figures["oracle"] == pytest.approx(0.3)  # the best of four on A
    assert figures["mean_pool"] == 4
    assert figures["parent_expert"] == pytest.approx(0.8)
    assert figures["parent_auxiliary"] == pytest.approx(0.25)
    assert figures["gap_closed"]["simmerge"] == pytest.approx(100 * 0.15 / 0.55)
    assert not {"random_plan", "mean_rank_share"} & set(figures)


def test_a_chosen_plan_is_asked_for_on_each_task_that_lacks_it() -> None:
    rows = [*designed_on("code"), *added()]
    found = found_in([row for row in rows if row["task"] != "rag" or row["order"][2] != "math-1"])
    joint = joint_of(found)
    options: dict[str, Any] = {"best_fixed": [FIXED]}
    ((plan, task),) = multiway.parents_plans_needed(found, joint, [chooser], **options)
    assert task == "rag"
    assert multiway.canonical(plan) == multiway.canonical(plan_of(["code-1", "rag-1", "math-1"], list(STEPS)))
    assert multiway.parents_plans_needed(found, joint, [chooser], tasks=["code"], **options) == []


def test_a_paper_plan_counts_where_its_task_has_it_and_is_asked_for_elsewhere() -> None:
    found = found_in(designed_on("code"))

    def linear(target: str | tuple[str, ...], members: tuple[str, ...]) -> multiway.Choice:
        return multiway.Choice(plan_of(sorted(members), ["linear@0.5", "linear@0.5"]))

    needed = multiway.parents_plans_needed(found, joint_of(found), [linear], best_fixed=["linear@0.5"])
    assert len(needed) == 6  # three orders on math and on rag
    assert {task for _, task in needed} == {"math", "rag"}


def test_plans_of_four_are_not_judged_by_the_mean() -> None:
    four = multiway.Configuration("code", "code-1", ("law-1", "math-1", "rag-1"))
    assert multiway.over_parents([], [four], domains={**DOMAINS, "law-1": "law"}, tasks=TASKS) == []
    assert multiway.of_own_design([four], PAPER) == [four]


class Root(DataRoot):
    """A data root whose tables are frames in memory."""

    def __init__(self, root: Path, frames: dict[str, pl.DataFrame]) -> None:
        super().__init__(root)
        self.frames = frames

    def scan(self, table: Any, *, where: Any = None) -> pl.LazyFrame:
        return self.frames[table.name].lazy() if table.name in self.frames else super().scan(table, where=where)


def test_a_partition_alone_asks_for_the_same_and_the_report_is_then_complete(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(selector: Any, features: pl.DataFrame) -> multiway.Chooser:
        steps = ["linear@0.5", "ties@0.5"] if selector.actions == PAPER else ["norm_balanced@0.5", "slerp@0.7"]
        return lambda target, members: multiway.Choice(plan_of(sorted(members), steps), 0.4, 0.1)

    monkeypatch.setattr(reporting, "plan_chooser", choose)
    prints = [(pl.lit("f-") + pl.col(side)).alias(f"{side}_fingerprint") for side in "ab"]
    root = Root(
        tmp_path,
        {
            "merge_labels": world.labels,
            "standalone_scores": world.standalone,
            "pairwise_features": world.features.with_columns(prints),
            "plan_labels": pl.DataFrame(designed_on("code")),
        },
    )
    trained = {
        name: {d: TableSelector(actions) for d in (AB, BA)}
        for name, actions in (("paper", PAPER), ("extended", EXTENDED))
    }
    designed = [("code", MEMBERS)]
    options: dict[str, Any] = {"selectors": trained, "designed": designed}
    everything = analysis.plans_needed(root, world.catalog, **options)
    per_task = {task: analysis.plans_needed(root, world.catalog, tasks=[task], **options) for task in TASKS}
    assert sorted((str(p), t) for p, t in everything) == sorted((str(p), t) for ps in per_task.values() for p, t in ps)
    assert all(per_task.values())
    assert max(map(len, per_task.values())) <= 12
    # With an empty table a task whose design has no configuration is asked for the same.
    root.frames["plan_labels"] = pl.DataFrame(designed_on("code")).clear()
    assert analysis.plans_needed(root, world.catalog, tasks=["rag"], **options) == per_task["rag"]
    new = [
        row
        for p, t in everything
        for row in rows_of(p.checkpoints, tuple(map(str, p.actions)), t, 0.5, 0.25 + 0.25 * (t == "rag"))
    ]
    root.frames["plan_labels"] = pl.DataFrame([*designed_on("code"), *new])
    assert analysis.plans_needed(root, world.catalog, selectors=trained) == []
    report = analysis.report(root, world.catalog, selectors=trained, rivals=(), draws=50)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    paper, extended = report["plans"]["3"], report["extended"]["plans"]["3"]
    assert (paper["configurations"], paper["executed_plans"], paper["without_needed_plans"]) == (1, 27, 0)
    assert (extended["rows"], extended["without_needed_plans"]) == (2, 0)
    assert set(extended) >= {"simmerge", "expert_last_best_fixed", "random_order", "oracle", "gap_closed", "per_task"}
    # On B each plan has 0.25, 0.25, 0.5 and on A 0.5 throughout; both directions count alike.
    assert extended["simmerge"] == pytest.approx((1 / 3 + 0.5) / 2)
    assert "mean over the tasks of all their checkpoints" in report["extended"]["protocol"]["plans"]
    text = analysis.render(json.loads(json.dumps(report))).markdown
    assert "### Extended actions: 3-way plans" in text
    assert "3-way plans, extended actions, all parents' tasks" in text
