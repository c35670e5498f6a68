"""Bandits in the pipeline: choose, merge, evaluate, learn, each round once, whatever is killed, repeated or changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import dagster as dg
import numpy as np
import polars as pl
import pytest
import torch
from pipeline_world import World, newest_event, width_of

from simmerge_core.bandit import OnlineBandit, bandit_folder
from simmerge_core.bandit.durable import DurableBandit
from simmerge_core.catalog import load_catalog
from simmerge_core.errors import CatalogError
from simmerge_core.operators.actions import parse_action
from simmerge_core.tables import BANDIT_ROUNDS, MERGE_LABELS, MERGE_OUTCOMES, MERGE_PLANS
from simmerge_pipeline.materialize import Summary

pytestmark = pytest.mark.integration

INPUTS = ("checkpoints", "pairwise_features", "merge_labels", "evaluations", "selector")
CHAIN = ("bandit", "merge_plans", "merged_checkpoints", "merge_outcomes", "bandit_rounds")
SET = ["linear@0.5", "slerp@0.3", "slerp@0.7", "ties@0.5"]
# Given, so that nothing is tuned, and wide, so that draws differ.
SETTINGS = {"exploration": 0.2, "regularisation": 5.0, "label_weight": 1.0, "mixing": 0.1, "seed": 3}
REQUESTS = {
    "three": {"id": "three", "task": "math", "k": 3, "actions": "mine", "policy": "lints"},
    "both": {"id": "both", "tasks": ["math", "code"], "weights": [3, 1], "actions": "mine", "policy": "lints"},
    "rival": {"id": "rival", "task": "code", "k": 3, "actions": "mine", "policy": "linucb"},
    "plain": {"id": "plain", "task": "math", "actions": "paper"},
}


def place(world: World, folder: Path, instance: dg.DagsterInstance, *parts: str) -> World:
    """A copy of a world with these parts of its data, known to an instance that has seen nothing."""
    shutil.copytree(world.catalog_path.parent, folder / "catalog")
    for name in parts:
        if (world.data / name).is_dir():
            shutil.copytree(world.data / name, folder / "data" / name)
    return World(folder / "catalog" / world.catalog_path.name, folder / "data", instance)


@pytest.fixture
def labelled(finished: tuple[World, Summary], tmp_path: Path) -> Iterator[World]:
    """Labels and no bandit; one request for math."""
    torch.set_num_threads(1)
    with dg.DagsterInstance.ephemeral() as instance:
        world = place(finished[0], tmp_path, instance, *INPUTS)
        two = {"id": "two", "task": "math", "actions": "mine", "policy": "lints"}
        world.declare(action_sets={"mine": SET}, bandit=SETTINGS, merge_requests=[two])
        yield world


@pytest.fixture(scope="module")
def served(finished: tuple[World, Summary], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Four requests, all served; read-only by agreement."""
    torch.set_num_threads(1)
    with dg.DagsterInstance.ephemeral() as instance:
        world = place(finished[0], tmp_path_factory.mktemp("served"), instance, *INPUTS)
        world.declare(action_sets={"mine": SET}, bandit=SETTINGS, merge_requests=list(REQUESTS.values()))
        assert world.materialize(*CHAIN).failed == {}
        yield world


@pytest.fixture
def copied(served: World, tmp_path: Path) -> Iterator[World]:
    """The same, for a test to change, and an instance that has seen nothing: all that is asked for is done again."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield place(served, tmp_path, instance, *INPUTS, *CHAIN)


def opened(world: World, name: str = "mine-lints") -> OnlineBandit:
    return OnlineBandit.open(bandit_folder(world.root, name))


def log(world: World, name: str = "mine-lints") -> dict[str, bytes]:
    folder = bandit_folder(world.root, name) / "log"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def plan_of(world: World, request: str) -> tuple[list[str], list[str]]:
    best = world.root.read(MERGE_PLANS, merge_request=request).filter(pl.col("rank") == 1).row(0, named=True)
    return best["order"], best["actions"]


def latest(world: World, asset: str) -> dict[str | None, dg.AssetMaterialization]:
    found: dict[str | None, dg.AssetMaterialization] = {}
    for record in world.instance.fetch_materializations(dg.AssetKey(asset), limit=100).records:
        assert record.asset_materialization is not None
        found.setdefault(record.asset_materialization.partition, record.asset_materialization)
    return found


def without(world: World, asset: str, request: str) -> None:
    shutil.rmtree(world.data / asset / f"merge_request={request}")


# --- what a round says


def reward_by_hand(world: World, request: str, step: int) -> float:
    """Mean over item sets of the deciding metric on each task, weighted over tasks, number by number."""
    asked, (order, actions) = REQUESTS[request], plan_of(world, request)
    rows = world.root.read(MERGE_OUTCOMES, merge_request=request)
    role = "simmerge" if step == len(actions) else "step"
    tasks, weights = asked.get("tasks", [asked.get("task")]), asked.get("weights", [1])
    total = 0.0
    for task, weight in zip(tasks, weights, strict=True):
        scores = {}
        for row in rows.iter_rows(named=True):
            named = all(text in row["model"] for text in (*order[: step + 1], *actions[:step]))
            if row["role"] == role and row["task"] == task and row["metric"] == "acc,none" and named:
                longer = step < len(actions) and order[step + 1] in row["model"]
                if not longer:
                    scores[row["item_set"]] = row["utility"]
        assert sorted(scores) == ["A", "B"]
        total += weight / sum(weights) * sum(scores.values()) / 2
    return total


@pytest.mark.parametrize("request_id", ["three", "both", "rival"])
def test_a_step_s_reward_is_the_mean_over_item_sets(served: World, request_id: str) -> None:
    rows = served.root.read(BANDIT_ROUNDS, merge_request=request_id)
    assert rows["step"].to_list() == list(range(1, REQUESTS[request_id].get("k", 2)))
    assert rows["round_id"].to_list() == [f"{request_id}/{step}" for step in rows["step"]]
    for row in rows.iter_rows(named=True):
        assert row["reward"] == pytest.approx(reward_by_hand(served, request_id, row["step"]), abs=1e-12)
        tasks = REQUESTS[request_id].get("tasks", [REQUESTS[request_id].get("task")])
        assert row["task"] == "+".join(tasks)
        outcomes = served.root.read(MERGE_OUTCOMES, merge_request=request_id)
        by_task = dict(outcomes.select("evaluation_key", "task").iter_rows())
        assert [by_task[key] for key in row["evaluation_key"].split("+")] == tasks


@pytest.mark.parametrize("request_id", ["three", "both", "rival"])
def test_arms_are_the_plan_s_actions_with_the_expert_first(served: World, request_id: str) -> None:
    order, actions = plan_of(served, request_id)
    domains, asked = served.catalog.domains, REQUESTS[request_id]
    rows = served.root.read(BANDIT_ROUNDS, merge_request=request_id)
    assert rows["action"].to_list() == actions
    for row, action in zip(rows.iter_rows(named=True), actions, strict=True):
        *merged, added = row["merged"]
        assert [*merged, added] == order[: row["step"] + 1]
        turned = "task" in asked and domains[added] == asked["task"] not in {domains[c] for c in merged}
        assert row["arm"] == str(parse_action(action).mirrored() if turned else parse_action(action))
        assert row["arm"] in SET
        assert row["bandit"] == f"mine-{asked['policy']}"


def test_the_bandit_s_plan_comes_first(served: World) -> None:
    for request in ("three", "both", "rival"):
        plans = served.root.read(MERGE_PLANS, merge_request=request)
        assert plans["rank"].to_list() == list(range(1, plans.height + 1))
        assert plans.select("order", "actions").unique().height == plans.height
        others = plans.filter(pl.col("rank") > 1)["predicted_utility"].to_list()
        assert others == sorted(others, reverse=True)
        assert plans["selector_key"].n_unique() == 1
        told = latest(served, "merge_plans")[request].metadata
        rows = served.root.read(BANDIT_ROUNDS, merge_request=request)
        for step, arm, propensity in rows.select("step", "arm", "propensity").iter_rows():
            assert told[f"step {step}"].value == f"{arm}, chosen with probability {propensity:.3f}"
    # All were chosen before anything was learned.
    keys = [served.root.read(MERGE_PLANS, merge_request=request)["selector_key"][0] for request in ("three", "both")]
    assert keys[0] == keys[1] == DurableBandit.open(bandit_folder(served.root, "mine-lints"))._warm.key


@pytest.mark.parametrize(("name", "rounds"), [("mine-lints", 3), ("mine-linucb", 2)])
def test_replay_is_exact(served: World, name: str, rounds: int) -> None:
    replayed = opened(served, name).durable.replay()
    assert (replayed.identical, replayed.differences) == (True, [])
    assert (replayed.rounds, replayed.learned, replayed.pending, replayed.events) == (rounds, rounds, 0, 2 * rounds)
    told = json.loads((served.data / "bandit" / "bandits.json").read_text())[name]
    assert told["policy"] == name.removeprefix("mine-")
    assert told["arms"] == SET


def test_linucb_takes_the_highest_bound(served: World) -> None:
    """Solved anew: mean and deviation from the warm posterior's precision, which nothing had moved yet."""
    online = opened(served, "mine-linucb")
    warm = online.durable._warm.posterior
    for row in online.durable.rounds().iter_rows(named=True):
        z = np.array(row["z"])
        bounds = [
            np.linalg.solve(a, b) @ z + SETTINGS["exploration"] * np.sqrt(z @ np.linalg.solve(a, z))
            for a, b in zip(warm.precision, warm.moment, strict=True)
        ]
        share = np.full(len(SET), SETTINGS["mixing"] / len(SET))
        share[int(np.argmax(bounds))] += 1.0 - SETTINGS["mixing"]
        np.testing.assert_allclose(row["probabilities"], share, atol=1e-12)
        assert row["propensity"] == row["probabilities"][SET.index(row["arm"])]


def test_the_policy_selector_has_no_rounds(served: World) -> None:
    rows = served.root.read(BANDIT_ROUNDS, merge_request="plain")
    assert rows.height == 0
    assert latest(served, "bandit_rounds")["plain"].metadata["dagster/partition_row_count"].value == 0
    assert set(served.root.read(MERGE_OUTCOMES, merge_request="plain")["role"].unique()) >= {"simmerge", "base"}


def test_a_run_tells_what_it_brought(served: World) -> None:
    told = latest(served, "bandit_rounds")["three"].metadata
    rows = served.root.read(BANDIT_ROUNDS, merge_request="three")
    assert told["bandit"].value == "mine-lints"
    assert told["reward"].value == pytest.approx(rows["reward"][-1], abs=5e-5)
    newest = newest_event(served, "bandit_rounds").metadata
    for name in ("mine-lints", "mine-linucb"):
        picture = str(newest[f"{name} regret"].value)
        assert picture.startswith(f"![{name} regret](data:image/png;base64,")
        assert width_of(picture) == 960
    keys = [dg.AssetCheckKey(dg.AssetKey(asset), "no_nan") for asset in ("merge_plans", "bandit_rounds")]
    found = served.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    assert {record.status.value for record in found.values()} == {"SUCCEEDED"}


def test_the_report_leaves_intermediate_steps_out(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    outcomes = world.root.read(MERGE_OUTCOMES, merge_request="online-3way")
    steps = set(outcomes.filter(pl.col("role") == "step")["model"])
    others = set(outcomes.filter(pl.col("role") != "step")["model"])
    assert len(steps) == 1
    assert not steps & others
    report = json.loads((world.data / "report" / "report.json").read_text())
    listed = report["merge_requests"]["online-3way"]["models"]
    assert {model["role"] for model in listed} == {
        *("simmerge", "expert_last_best_fixed", "random_order", "parent", "base")
    }
    assert {model["model"] for model in listed} == others
    text = (world.data / "report" / "report.md").read_text()
    assert "online-3way" in text
    cells = {cell.strip().strip("`") for line in text.splitlines() if line.startswith("|") for cell in line.split("|")}
    assert not steps & cells


# --- once


def test_everything_done_again_changes_nothing(served: World, copied: World) -> None:
    names = ("mine-lints", "mine-linucb")
    before = {name: log(copied, name) for name in names}
    again = copied.materialize(*CHAIN)
    assert again.failed == {}
    computed = {name: len(REQUESTS) for name in CHAIN} | {"bandit": 1, "merge_plans": len(REQUESTS) - 1}
    assert {
        asset.name: asset.computed for asset in again.assets
    } == computed  # the selector's was executed: it is closed
    assert {name: log(copied, name) for name in names} == before
    for request in REQUESTS:
        rounds = [world.root.read(BANDIT_ROUNDS, merge_request=request) for world in (served, copied)]
        assert rounds[0].equals(rounds[1])
        assert plan_of(copied, request) == plan_of(served, request)
    # And a third time nothing is even looked at.
    assert [asset.name for asset in copied.materialize(*CHAIN).assets if asset.computed] == []


def test_a_run_killed_right_after_its_draws_has_the_same_plan(copied: World, served: World) -> None:
    """By then the bandit knows more than when it chose."""
    before = log(copied)
    without(copied, "merge_plans", "three")
    assert copied.materialize("merge_plans").ok
    assert plan_of(copied, "three") == plan_of(served, "three")
    assert log(copied) == before


def test_a_run_killed_before_its_rewards_is_finished(labelled: World) -> None:
    assert labelled.materialize(*CHAIN[:-1]).ok
    assert [r.round_id for r in opened(labelled).durable.pending()] == ["two/1"]
    before = log(labelled)

    # A score that no metric gives is refused by name, and teaches nothing.
    outcomes = labelled.root.read(MERGE_OUTCOMES, merge_request="two")
    wrong = pl.when(pl.col("role") == "simmerge").then(1.5).otherwise(pl.col("utility")).alias("utility")
    labelled.root.write(MERGE_OUTCOMES, outcomes.with_columns(wrong), merge_request="two")
    failed = labelled.materialize("bandit_rounds").failed
    assert list(failed) == ["bandit_rounds[two]"]
    assert "The reward 1.5 of arm" in failed["bandit_rounds[two]"]
    assert "lies outside [0, 1]" in failed["bandit_rounds[two]"]

    # So is a step that was not scored on every item set.
    labelled.root.write(MERGE_OUTCOMES, outcomes.filter(pl.col("item_set") != "B"), merge_request="two")
    failed = labelled.materialize("bandit_rounds").failed
    assert "Step 1 of merge request 'two' lacks scores on task 'math'" in failed["bandit_rounds[two]"]
    assert log(labelled) == before

    labelled.root.write(MERGE_OUTCOMES, outcomes, merge_request="two")
    assert labelled.materialize("bandit_rounds").ok
    assert opened(labelled).durable.pending() == []
    assert len(log(labelled)) == 2
    assert {name: log(labelled)[name] for name in before} == before
    rewards = outcomes.filter((pl.col("role") == "simmerge") & (pl.col("metric") == "acc,none"))["utility"]
    rows = labelled.root.read(BANDIT_ROUNDS, merge_request="two")
    assert rows["reward"].to_list() == [pytest.approx(sum(rewards) / 2, abs=1e-12)]


def test_a_changed_request_fails_alone(copied: World) -> None:
    before = log(copied)
    changed = {**REQUESTS["three"], "k": 2}
    copied.declare(merge_requests=[changed, *(r for r in REQUESTS.values() if r["id"] != "three")])
    summary = copied.materialize("merge_plans")
    assert list(summary.failed) == ["merge_plans[three]"]
    assert "Merge request 'three' has been begun as another one by bandit mine-lints" in summary.failed.popitem()[1]
    assert summary.assets[0].computed == len(REQUESTS) - 2  # the selector's was executed, and is closed
    assert log(copied) == before


def test_a_request_that_is_written_otherwise_is_the_same(copied: World, served: World) -> None:
    before = log(copied)
    said = {**REQUESTS["three"], "task": None, "tasks": ["math"], "top": 3}
    twice = {**REQUESTS["both"], "weights": [6, 2]}
    copied.declare(merge_requests=[said, twice])
    assert copied.materialize("merge_plans").ok
    assert copied.root.read(MERGE_PLANS, merge_request="three").height == 3
    for request in ("three", "both"):
        assert plan_of(copied, request) == plan_of(served, request)
    assert log(copied) == before


def test_the_minimum_over_tasks_is_refused(labelled: World) -> None:
    request = {"id": "least", "tasks": ["math", "code"], "how": "min", "policy": "lints"}
    labelled.declare(merge_requests=[request])
    with pytest.raises(CatalogError, match=r"'least' asks policy lints for the minimum over tasks, .*take the mean"):
        load_catalog(labelled.catalog_path)
    labelled.declare(merge_requests=[{**request, "policy": "selector"}])
    assert load_catalog(labelled.catalog_path).merge_requests[0].how == "min"


def test_two_runs_at_once_on_one_bandit_lose_nothing(labelled: World) -> None:
    """Each with a catalog and an instance of its own, on one data root; not even the bandit is there before."""
    ids, barrier = ("first", "second"), Barrier(2)
    catalogs = []
    for id in ids:
        path = labelled.catalog_path.with_name(f"{id}.yaml")
        shutil.copy(labelled.catalog_path, path)
        own = World(path, labelled.data, labelled.instance)
        own.declare(merge_requests=[{"id": id, "task": "math", "k": 3, "actions": "mine", "policy": "lints"}])
        catalogs.append(path)

    def run(assets: Sequence[str]) -> Callable[[Path], dict[str, str]]:
        def one(path: Path) -> dict[str, str]:
            with dg.DagsterInstance.ephemeral() as instance:
                world = World(path, labelled.data, instance)
                barrier.wait()
                return world.materialize(*assets).failed

        return one

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run(["merge_plans"]), catalogs)) == [{}, {}]
        for path in catalogs:  # scoring is one process's work
            assert World(path, labelled.data, labelled.instance).materialize(*CHAIN[2:4]).ok
        assert list(pool.map(run(["bandit_rounds"]), catalogs)) == [{}, {}]
    replayed = opened(labelled).durable.replay()
    assert (replayed.identical, replayed.rounds, replayed.pending, replayed.events) == (True, 4, 0, 8)
    rewards = [labelled.root.read(BANDIT_ROUNDS, merge_request=id)["reward"].sum() for id in ids]
    assert replayed.cumulative_reward == pytest.approx(sum(rewards))
    assert int(opened(labelled).durable.state.posterior.updates.sum()) == 4


# --- what changes while it runs


def test_actions_join_and_retire_with_the_action_set(copied: World) -> None:
    before, events = opened(copied).durable.state, len(log(copied))
    # One that has labels and one that has none: an arm begins without.
    copied.declare(action_sets={"mine": ["linear@0.5", "slerp@0.3", "slerp@0.7", "task_arithmetic@0.5", "ties@0.3"]})
    assert copied.materialize("bandit").failed == {}
    state = opened(copied).durable.state
    assert state.active == ("linear@0.5", "slerp@0.3", "slerp@0.7", "task_arithmetic@0.5", "ties@0.3")
    assert state.retired == {"ties@0.5"}
    assert len(log(copied)) == events + 3
    for name in ("precision", "moment", "factor", "mean", "updates"):
        assert getattr(state.posterior, name)[: len(SET)].tobytes() == getattr(before.posterior, name).tobytes()
    told = json.loads((copied.data / "bandit" / "bandits.json").read_text())["mine-lints"]
    assert (told["arms"], told["retired"], told["rounds"]) == (list(state.active), ["ties@0.5"], 3)
    copied.materialize("bandit")
    assert len(log(copied)) == events + 3

    new = [{"id": f"new-{n}", "task": "instruct", "k": 3, "actions": "mine", "policy": "lints"} for n in range(3)]
    copied.declare(merge_requests=[*REQUESTS.values(), *new])
    assert copied.materialize("merge_plans").failed == {}
    rounds = opened(copied).durable.rounds().filter(pl.col("request").str.starts_with("new"))
    assert rounds.height == 6
    assert "ties@0.5" not in rounds["arm"].to_list()
    assert {p[SET.index("ties@0.5")] for p in rounds["probabilities"].to_list()} == {0.0}
    joined = {"task_arithmetic@0.5", "ties@0.3"}
    assert joined & set(rounds["arm"])
    # What was drawn before is learned still, by an arm that has left, too.
    assert copied.materialize("bandit_rounds").failed.keys() == {f"bandit_rounds[{r['id']}]" for r in new}
    assert opened(copied).durable.replay().identical


def test_a_task_and_a_checkpoint_join(labelled: World, tiny_catalog: Path) -> None:
    """A bandit that has served a catalog without instruct."""
    whole = {name: labelled.root.read(MERGE_LABELS, **keys) for name, keys in _label_partitions(labelled).items()}
    tasks = [task.model_dump(mode="json") for task in labelled.catalog.tasks]
    labelled.declare(tasks=tasks[:2])
    for name, keys in _label_partitions(labelled).items():
        if keys["task"] == "instruct":
            labelled.root.write(MERGE_LABELS, whole[name].clear().drop(*keys), **keys)
    assert labelled.materialize("merge_plans").ok
    before = opened(labelled).durable.state
    assert opened(labelled).encoder.tasks == ("code", "math")
    new = {"id": "new", "task": "instruct", "k": 3, "actions": "mine", "policy": "lints"}
    labelled.declare(tasks=tasks, merge_requests=[new])
    for name, keys in _label_partitions(labelled).items():
        labelled.root.write(MERGE_LABELS, whole[name].drop(*keys), **keys)
    assert labelled.materialize(*CHAIN).failed == {}
    online = opened(labelled)
    state = online.durable.state
    assert state.tasks == ("instruct",)
    assert online.encoder.tasks == ("code", "math")
    rows = labelled.root.read(BANDIT_ROUNDS, merge_request="new")
    moved = [not np.array_equal(a, b) for a, b in zip(before.posterior.mean, state.posterior.mean, strict=True)]
    assert [arm for arm, has in zip(SET, moved, strict=True) if has] == sorted(set(rows["arm"]), key=SET.index)
    assert state.levels["instruct"].weight == rows.height == 2


def _label_partitions(world: World) -> dict[str, dict[str, str]]:
    return {"|".join(keys.values()): keys for keys in world.root.partitions(MERGE_LABELS)}


def test_a_bandit_that_has_chosen_nothing_begins_again_on_newer_labels(labelled: World) -> None:
    keys = next(k for k in labelled.root.partitions(MERGE_LABELS) if labelled.root.read(MERGE_LABELS, **k).height)
    part = labelled.root.read(MERGE_LABELS, **keys).drop(*keys)
    used = part.filter(pl.col("split") != "test")
    assert used.height
    started = []
    for utility in (0.25, 0.5, 0.5, 0.75):
        labelled.root.write(MERGE_LABELS, part.with_columns(utility=pl.lit(utility)), **keys)
        with dg.DagsterInstance.ephemeral() as fresh:
            own = World(labelled.catalog_path, labelled.data, fresh)
            assert own.materialize("bandit").failed == {}
            started.append(opened(own).durable.source)
            if len(started) == 3:
                assert own.materialize("merge_plans").ok  # from its first round on it goes on
    assert started[0] != started[1] == started[2] == started[3]
    folder = labelled.data / "bandit"
    assert sorted(path.name for path in folder.iterdir()) == ["bandits.json", "mine-lints"]


def test_settings_that_changed_are_told(copied: World) -> None:
    copied.declare(bandit={**SETTINGS, "exploration": 0.5})
    assert copied.materialize("bandit").ok
    run = copied.instance.get_runs()[0]
    told = [entry.user_message for entry in copied.instance.all_logs(run.run_id)]
    for name in ("mine-lints", "mine-linucb"):
        assert any(f"bandit.exploration is 0.5 in the catalog, and {name} was started with 0.2" in t for t in told)
    assert opened(copied).durable.state.exploration == 0.2


# --- what is broken


def test_a_broken_bandit_stops_no_other(copied: World) -> None:
    (weights,) = bandit_folder(copied.root, "mine-lints").rglob("encoder.safetensors")
    weights.write_bytes(b"x")
    failed = copied.materialize("bandit").failed
    assert list(failed) == ["bandit[bandit]"]
    assert failed["bandit[bandit]"].startswith("mine-lints: The weights in ")
    assert list(json.loads((copied.data / "bandit" / "bandits.json").read_text())) == ["mine-linucb"]
    summary = copied.materialize("merge_plans", "bandit_rounds")
    assert summary.failed.keys() == {f"{a}[{r}]" for a in ("merge_plans", "bandit_rounds") for r in ("three", "both")}
    assert [asset.computed for asset in summary.assets] == [1, 2]  # the selector's plan was executed, and is closed


def test_a_bandit_that_was_put_aside_learns_no_plan_of_another(copied: World) -> None:
    folder = bandit_folder(copied.root, "mine-lints")
    folder.rename(folder.with_name("mine-lints.before-1"))
    without(copied, "bandit_rounds", "three")
    failed = copied.materialize("bandit_rounds").failed
    assert "There is no bandit in" in failed["bandit_rounds[three]"]
    assert copied.materialize("bandit").ok
    failed = copied.materialize("bandit_rounds").failed
    assert failed.keys() == {"bandit_rounds[three]", "bandit_rounds[both]"}
    assert "is not the one that bandit mine-lints drew: materialize merge_plans," in failed["bandit_rounds[three]"]
    assert log(copied) == {}
    assert copied.materialize(*CHAIN[1:]).failed == {}
    assert opened(copied).durable.replay().rounds == 3
