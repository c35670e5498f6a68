"""The online experiment on a catalog whose law is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from experiments_world import WorldData, make_data

from simmerge_core.bandit import warming
from simmerge_core.errors import SelectionError
from simmerge_core.experiments import bandit
from simmerge_core.experiments.bandit_streams import configurations, merge_stream, pair_stream, warm_rows
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.pages.online import bandit as bandit_page
from simmerge_core.experiments.result import Result
from simmerge_core.labels import shares_of, split_of
from simmerge_core.operators.actions import parse_action
from simmerge_core.plans import Plan

SEEDS = 3


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> WorldData:
    world = make_data(tmp_path_factory.mktemp("online"), per_domain=6, noise=0.0)
    rules = world.protocol.bandit.model_copy(update={"merges": {2: 4, 3: 4}, "seeds": SEEDS, "pair_rounds": 10})
    return replace(world, protocol=world.protocol.model_copy(update={"bandit": rules}))


@pytest.fixture(scope="module", autouse=True)
def small_grid() -> Iterator[None]:
    """Tuning has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, values in (("EXPLORATIONS", (0.01, 0.1)), ("REGULARISATIONS", (10.0,)), ("LABEL_WEIGHTS", (10.0,))):
            patch.setattr(warming, name, values)
        yield


@pytest.fixture(scope="module")
def result(online: WorldData, small_grid: None) -> Result:
    return bandit.run(Catalogs(online), lambda message, fraction: None)


def test_merges_hold_the_new_domain_and_no_pair_that_was_learned_from(online: WorldData) -> None:
    domains, shares, salt = online.catalog.domains, shares_of(online.catalog), online.catalog.labels.salt
    for k in (2, 3):
        found = configurations(online.catalog, sorted(domains), k=k, count=8, new="instruct")
        assert len(found) == len(set(found)) == 8
        assert {task for task, _ in found} == set(online.catalog.task_ids)
        for task, order in found:
            assert len({domains[c] for c in order}) == k
            assert domains[order[-1]] == task
            assert "instruct" in {domains[c] for c in order}
            for a, b in combinations(order, 2):
                fitted = split_of(a, b, shares=shares, salt=salt) != "test"
                assert not fitted or "instruct" in (domains[a], domains[b])


def test_too_few_merges_are_refused_by_name(online: WorldData) -> None:
    with pytest.raises(SelectionError, match=r"merges of 4 checkpoints for task .* the experiment needs 100"):
        configurations(online.catalog, sorted(online.catalog.domains), k=4, count=400, new="instruct")


def test_the_warm_start_knows_nothing_of_the_new_domain(online: WorldData) -> None:
    rows = warm_rows(online, ["linear@0.5", "slerp@0.5", "ties@0.5"], "instruct")
    meta = rows.meta
    assert len(rows)
    assert "instruct" not in {*meta["a_domain"], *meta["b_domain"], *meta["task"]}
    assert set(meta["split"]) == {"train", "validation"}


def test_every_choice_of_every_merge_is_executed(online: WorldData) -> None:
    stream = merge_stream(online)
    for merge in stream.merges:
        assert len(merge.utilities) == sum(3**step for step in range(1, merge.k))
        for steps in product(stream.actions, repeat=merge.k - 1):
            plan = Plan(merge.order, tuple(map(parse_action, steps)))
            assert merge.utilities[steps] == pytest.approx(online.law.plan(plan, str(merge.target)), abs=1e-12)
        last = [u for s, u in merge.utilities.items() if len(s) == merge.k - 1]
        assert merge.best == max(last)
        *auxiliaries, expert = merge.order
        assert merge.expert == pytest.approx(online.law.alone(expert, str(merge.target)))
        assert merge.auxiliary == pytest.approx(np.mean([online.law.alone(c, str(merge.target)) for c in auxiliaries]))


@pytest.mark.parametrize(("actions", "target"), [("paper", "expert_task"), ("extended", "both_tasks")])
def test_labelled_pairs_are_a_stream_in_the_plan_s_own_order(online: WorldData, actions: str, target: str) -> None:
    stream = pair_stream(online, actions, target)  # type: ignore[arg-type]
    assert len(stream.merges) == 6 * 18 * (2 if target == "expert_task" else 1)
    for merge in stream.merges:
        for (action,), utility in merge.utilities.items():
            plan = Plan(merge.order, (parse_action(action),))
            by_law = np.mean([online.law.plan(plan, task) for task in merge.target.tasks])
            mirrored = Plan(merge.order[::-1], (parse_action(action).mirrored(),))
            turned = np.mean([online.law.plan(mirrored, task) for task in merge.target.tasks])
            assert utility in (pytest.approx(by_law, abs=1e-12), pytest.approx(turned, abs=1e-12))


def test_rows_hold_every_round_and_figures_follow_from_them(result: Result) -> None:
    for name, section in result.figures.items():
        rows = result.rows.filter(pl.col("stream") == name)
        assert rows.height == len(bandit.POLICIES) * SEEDS * section["merges"]
        assert rows["regret"].min() >= 0.0
        for policy in bandit.POLICIES:
            own = rows.filter(pl.col("policy") == policy).sort("seed", "round")
            total = own["regret"].to_numpy().reshape(SEEDS, -1).cumsum(axis=1)
            np.testing.assert_allclose(section["regret"][policy]["mean"], total[:, -1].mean(), atol=1e-4)
            np.testing.assert_allclose(bandit.cumulative(result.rows, name, policy), total, atol=1e-4)
            # Every run meets every merge once.
            assert (
                own.group_by("seed").agg(pl.struct("order", "task").n_unique())["order"].to_list()
                == [section["merges"]] * SEEDS
            )


def test_policies_that_do_not_learn_lose_the_same_on_a_merge_in_every_run(result: Result) -> None:
    rows = result.rows.filter(pl.col("policy").is_in(["best_fixed", "frozen", "not_updated"]))
    spread = rows.group_by("stream", "policy", "order", "task").agg((pl.max("regret") - pl.min("regret")).alias("s"))
    assert spread["s"].max() < 1e-6


def test_choosing_is_worth_something_where_the_law_can_be_learned(result: Result) -> None:
    regret = {p: f["mean"] for p, f in result.figures["pairs_paper"]["regret"].items()}
    assert regret["frozen"] < 0.7 * regret["uniform"]
    assert regret["lints"] < 0.7 * regret["uniform"]
    assert regret["told_all"] < regret["uniform"]


def test_changes_lie_below_the_oracle_s(result: Result) -> None:
    for section in result.figures.values():
        for part in section["deltas"].values():
            assert all(figures["expert"] <= part["oracle"]["expert"] + 1e-9 for figures in part.values())


def test_equal_input_gives_equal_rows(online: WorldData, result: Result) -> None:
    again = bandit.run(Catalogs(online), lambda message, fraction: None)
    assert again.rows.equals(result.rows)
    assert again.figures == result.figures


def test_the_page_has_a_table_for_each_stream(result: Result, tmp_path: Path) -> None:
    snippets = bandit_page(result)
    for name in result.figures:
        assert "**LinTS**" in snippets[f"{name}_regret"]
        assert "regularisation" in snippets[f"{name}_tuned"]
    assert "oracle" in snippets["merges_deltas"]
    assert "≤ 0.5" in snippets["bars"]
