"""A bandit on a data root: whole or absent, one order and one plan per request, and a catalog that it follows."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import polars as pl
import pytest
from bandit_world import ACTIONS, DOMAINS, World, make_world

from simmerge_core.bandit import (
    Context,
    LinearBandit,
    OnlineBandit,
    WarmStart,
    bandit_folder,
    bandit_name,
    bandit_names,
)
from simmerge_core.bandit.durable import DurableBandit
from simmerge_core.bandit.online import put_aside, round_of
from simmerge_core.errors import BanditError, SimMergeError
from simmerge_core.planning import target_of
from simmerge_core.tables import DataRoot

ORDER = ("code-00", "rag-01", "math-01")
REWARDS = [(0.61, "key-1"), (0.72, "key-2")]


@pytest.fixture(scope="module", autouse=True)
def _unsynced() -> Iterator[None]:
    """Only power cuts need it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def warm(world: World) -> WarmStart:
    return world.warm()


@pytest.fixture(scope="module")
def other(world: World) -> WarmStart:
    """On other labels."""
    return World(world.catalog, world.features, world.labels.head(world.labels.height // 2)).warm()


@pytest.fixture
def online(warm: WarmStart, tmp_path: Path) -> OnlineBandit:
    return OnlineBandit.start(tmp_path / "bandit" / "mine-lints", warm)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def events(online: OnlineBandit) -> int:
    return DurableBandit.open(online.folder).replay().events


# --- it begins once


def test_a_start_that_was_killed_on_the_way_is_made_again(
    warm: WarmStart, other: WarmStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path, bandit: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "bandit" / "mine-lints"
    with monkeypatch.context() as patched:
        patched.setattr(DurableBandit, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            OnlineBandit.start(folder, other)
    assert files(folder)
    assert bandit_names(DataRoot(tmp_path)) == []
    with pytest.raises(BanditError, match=r"no bandit in .*mine-lints: materialize the asset bandit"):
        OnlineBandit.open(folder)
    online = OnlineBandit.start(folder, warm)  # there are more labels by now
    assert online.encoder.key == warm.encoder.key == online.durable.source
    assert online.durable.state.key == warm.bandit.key
    assert bandit_names(DataRoot(tmp_path)) == ["mine-lints"]


def test_a_start_begins_one_history(online: OnlineBandit, warm: WarmStart, other: WarmStart) -> None:
    before = files(online.folder)
    for again in (warm, other):  # who starts later, on other labels maybe, gets the bandit that is there
        found = OnlineBandit.start(online.folder, again)
        assert (found.durable.state.key, found.encoder.key) == (warm.bandit.key, warm.encoder.key)
    assert files(online.folder) == before
    assert online.name == "mine-lints"
    assert online.tuning == {}


def test_of_two_starts_at_once_one_counts(
    warm: WarmStart, other: WarmStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, create = tmp_path / "bandit" / "mine-lints", DurableBandit.create

    def late(place: Path, bandit: LinearBandit) -> DurableBandit:
        monkeypatch.setattr(DurableBandit, "create", create)
        OnlineBandit.start(folder, other)
        return create(place, bandit)

    monkeypatch.setattr(DurableBandit, "create", late)
    online = OnlineBandit.start(folder, warm)
    assert (online.durable.state.key, online.encoder.key) == (other.bandit.key, other.encoder.key)
    assert OnlineBandit.open(folder).durable.state.key == other.bandit.key


def test_workers_may_start_at_once(warm: WarmStart, tmp_path: Path) -> None:
    barrier = Barrier(4)

    def start(number: int) -> str:
        folder = tmp_path / str(number // 4) / "mine-lints"
        barrier.wait()
        return OnlineBandit.start(folder, warm).durable.state.key

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(start, range(40))) == {warm.bandit.key}
    for number in range(10):
        assert not list((tmp_path / str(number)).rglob(".*"))  # and no litter


def test_a_start_that_cannot_be_written_is_told(
    warm: WarmStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path, bandit: object) -> None:
        raise BanditError("The log has lost its warm state.")

    monkeypatch.setattr(DurableBandit, "create", refused)
    with pytest.raises(BanditError, match="has lost its warm state"):
        OnlineBandit.start(tmp_path / "bandit" / "mine-lints", warm)


def test_tuning_is_kept(world: World, tmp_path: Path) -> None:
    few = World(world.catalog, world.features, world.labels.filter(world.labels["a"] < "code"))
    warm = few.warm(exploration=None)  # of one domain and the others: no other shift than the validation rows
    online = OnlineBandit.start(tmp_path / "bandit" / "mine-lints", warm)
    assert warm.tuning is not None
    assert online.tuning == json.loads(json.dumps(warm.tuning.as_json()))
    assert online.tuning["chosen"]["exploration"] == online.durable.state.exploration


def place(online: OnlineBandit) -> Path:
    """The folder of its encoder."""
    (found,) = (path.parent for path in online.folder.rglob("encoder.json"))
    return found


def _swapped(online: OnlineBandit, other: WarmStart) -> None:
    other.encoder.save(place(online))


def _flipped(online: OnlineBandit, other: WarmStart) -> None:
    path = place(online) / "encoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda online, other: shutil.rmtree(online.folder), "There is no bandit in"),
        (lambda online, other: shutil.rmtree(online.folder / "warm"), "There is no bandit in"),
        (lambda online, other: shutil.rmtree(place(online)), "There is no encoder in"),
        (_flipped, "weights in .* are not those its configuration names"),
        (_swapped, "encoder in .* is not the one that the bandit was started with: restore it"),
        (lambda online, other: (online.folder / "warm" / "bandit.json").write_text("{}"), "is damaged"),
    ],
)
def test_what_is_missing_damaged_or_of_another_is_refused(
    online: OnlineBandit, other: WarmStart, damage: Callable[[OnlineBandit, WarmStart], None], told: str
) -> None:
    damage(online, other)
    with pytest.raises(BanditError, match=told):
        OnlineBandit.open(online.folder)


def test_names_stay_in_the_data_root(tmp_path: Path) -> None:
    root = DataRoot(tmp_path)
    assert bandit_folder(root, bandit_name("extended", "lints")) == tmp_path / "bandit" / "extended-lints"
    with pytest.raises(SimMergeError, match="bandit"):
        bandit_folder(root, "../elsewhere")


def test_who_still_holds_a_bandit_that_was_put_aside_writes_to_no_other(
    online: OnlineBandit, world: World, other: WarmStart, tmp_path: Path
) -> None:
    put_aside(DataRoot(tmp_path), online.name)
    with pytest.raises(BanditError, match="was put aside or removed meanwhile: materialize this again"):
        chosen(online, world, "r")
    assert not online.folder.exists()
    new = OnlineBandit.start(online.folder, other)
    for act in (lambda: chosen(online, world, "r"), lambda: online.follow_catalog(ACTIONS[:3], DOMAINS)):
        with pytest.raises(BanditError, match="was put aside or removed meanwhile: materialize this again"):
            act()
    assert events(new) == 0
    assert chosen(OnlineBandit.open(online.folder), world, "r")


# --- it follows the catalog


def test_actions_and_tasks_join_and_actions_retire(online: OnlineBandit) -> None:
    before = online.durable.state
    wanted = ["linear@0.5", "slerp@0.30", "ties@0.5", "norm_balanced"]  # not all in their normal form
    told = online.follow_catalog(wanted, [*DOMAINS, "poetry"])
    assert told == ["arm norm_balanced@0.5 joined", "arm slerp@0.7 retired", "task poetry joined"]
    state = online.durable.state
    assert state.active == ("linear@0.5", "slerp@0.3", "ties@0.5", "norm_balanced@0.5")
    assert state.tasks == ("poetry",)
    count = events(online)
    assert online.follow_catalog(wanted, [*DOMAINS, "poetry"]) == []
    assert OnlineBandit.open(online.folder).follow_catalog(wanted, [*DOMAINS, "poetry"]) == []
    assert events(online) == count == 3
    # What the others know has not moved, and a task takes nothing from anybody.
    for name in ("precision", "moment", "factor", "mean", "updates"):
        old, new = getattr(before.posterior, name), getattr(state.posterior, name)
        assert new[: len(ACTIONS)].tobytes() == old.tobytes()
    np.testing.assert_array_equal(state.posterior.mean[-1], before.posterior.mean.mean(axis=0))
    assert online.follow_catalog(ACTIONS, DOMAINS) == ["arm slerp@0.7 joined", "arm norm_balanced@0.5 retired"]
    assert online.durable.state.active == ACTIONS
    assert online.durable.replay().identical


def test_all_actions_may_be_others(online: OnlineBandit) -> None:
    online.follow_catalog(["task_arithmetic", "norm_balanced"], DOMAINS)
    assert online.durable.state.active == ("task_arithmetic@0.5", "norm_balanced@0.5")


@pytest.mark.parametrize("kind", ["add_arm", "retire_arm", "add_task"])
def test_another_worker_may_follow_first(online: OnlineBandit, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    rival = OnlineBandit.open(online.folder)
    wanted, tasks = ["linear@0.5", "slerp@0.3", "ties@0.5", "norm_balanced"], [*DOMAINS, "poetry"]
    move = getattr(DurableBandit, kind)

    def late(self: DurableBandit, name: str) -> None:
        if self is online.durable:
            rival.follow_catalog(wanted, tasks)
        move(self, name)

    monkeypatch.setattr(DurableBandit, kind, late)
    online.follow_catalog(wanted, tasks)
    state = online.durable.state
    assert state.active == ("linear@0.5", "slerp@0.3", "ties@0.5", "norm_balanced@0.5")
    assert state.tasks == ("poetry",)
    assert events(online) == 3


def test_workers_may_follow_at_once(online: OnlineBandit) -> None:
    wanted, tasks = ["ties@0.5", "norm_balanced", "task_arithmetic"], [*DOMAINS, "poetry", "prose"]
    barrier = Barrier(4)

    def follow(_: int) -> None:
        own = OnlineBandit.open(online.folder)
        barrier.wait()
        own.follow_catalog(wanted, tasks)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(follow, range(4)))
    assert online.durable.state.active == ("ties@0.5", "norm_balanced@0.5", "task_arithmetic@0.5")
    assert online.durable.state.tasks == ("poetry", "prose")
    assert events(online) == 2 + 3 + 2


def test_a_refusal_of_the_bandit_s_own_stays_one(online: OnlineBandit) -> None:
    with pytest.raises(BanditError, match="is the last one"):
        online.follow_catalog([], DOMAINS)


# --- one order per request


def test_the_first_order_holds(online: OnlineBandit) -> None:
    asked = {"id": "r", "k": 3, "tasks": ("math",)}
    assert online.begin("r", asked, ORDER) == ORDER
    before = files(online.folder)
    assert online.begin("r", asked, ORDER[::-1]) == ORDER
    assert OnlineBandit.open(online.folder).begin("r", json.loads(json.dumps(asked)), ["math-00"]) == ORDER
    with pytest.raises(BanditError, match=r"Merge request 'r' has been begun as another one by bandit mine-lints, and"):
        online.begin("r", {**asked, "k": 2}, ORDER)
    assert files(online.folder) == before
    assert not list((online.folder / "requests").glob(".*"))
    with pytest.raises(SimMergeError, match="merge request"):
        online.begin("../r", asked, ORDER)


def test_the_first_order_holds_when_many_begin_at_once(online: OnlineBandit) -> None:
    barrier = Barrier(8)

    def begin(number: int) -> tuple[str, ...]:
        own = OnlineBandit.open(online.folder)
        barrier.wait()
        return own.begin("r", {"id": "r"}, (f"math-{number}", "code-00"))

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(begin, range(8)))
    assert len(found) == 1
    assert online.begin("r", {"id": "r"}, ORDER) in found


def test_settings_that_the_catalog_has_changed_are_told(online: OnlineBandit) -> None:
    same = {"exploration": 0.05, "regularisation": None, "label_weight": 3.0, "mixing": 0.0, "reward_range": (0.0, 1.0)}
    assert online.differs_from({**same, "seed": 0}) == []
    assert online.differs_from({**same, "seed": 1, "exploration": 0.5, "reward_range": (0.0, 2.0)}) == [
        "bandit.exploration is 0.5 in the catalog, and mine-lints was started with 0.05",
        "bandit.reward_range is (0.0, 2.0) in the catalog, and mine-lints was started with (0.0, 1.0)",
        "bandit.seed is 1 in the catalog, and mine-lints was started with 0",
    ]


# --- rounds of a request


def chosen(online: OnlineBandit, world: World, request: str, order: Sequence[str] = ORDER) -> list[str]:
    plan = online.choose_plan(request, world.features, target_of("math"), order)
    assert plan.checkpoints == tuple(order)
    return [str(action) for action in plan.actions]


def test_a_plan_is_chosen_once(online: OnlineBandit, world: World) -> None:
    actions = chosen(online, world, "r")
    assert events(online) == 2
    rounds = online.durable.rounds()
    assert rounds["round_id"].to_list() == ["r/1", "r/2"] == [round_of("r", step) for step in (1, 2)]
    assert rounds["request"].to_list() == ["r", "r"]
    assert rounds["step"].to_list() == [1, 2]
    arms = rounds["arm"].to_list()
    assert actions[0] == arms[0]
    turned = {"slerp@0.3": "slerp@0.7", "slerp@0.7": "slerp@0.3"}  # math's expert is added last
    assert actions[1] == turned.get(arms[1], arms[1])
    assert chosen(online, world, "r") == actions
    assert chosen(OnlineBandit.open(online.folder), world, "r") == actions
    assert events(online) == 2


def test_a_request_killed_between_two_steps_goes_on(
    online: OnlineBandit, world: World, warm: WarmStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = OnlineBandit.start(tmp_path / "bandit" / "whole-lints", warm)
    first, _ = chosen(whole, world, "r")
    choose = DurableBandit.choose

    def dying(self: DurableBandit, round_id: str, context: Context, **rest: Any) -> object:
        if round_id == "r/2":
            raise KeyboardInterrupt
        return choose(self, round_id, context, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(DurableBandit, "choose", dying)
        with pytest.raises(KeyboardInterrupt):
            chosen(online, world, "r")
    assert [r.round_id for r in online.durable.pending()] == ["r/1"]
    chosen(online, world, "another")
    online.learn("another", REWARDS)  # what is learned meanwhile moves no step that was drawn
    assert chosen(online, world, "r")[0] == first
    assert [r.round_id for r in online.durable.pending()] == ["r/1", "r/2"]
    assert online.durable.replay().identical


def test_a_plan_is_learned_once(online: OnlineBandit, world: World) -> None:
    chosen(online, world, "r")
    learned = online.learn("r", REWARDS)
    assert [(r.reward, r.evaluation_key) for r in learned] == REWARDS
    key = online.durable.state.key
    assert OnlineBandit.open(online.folder).learn("r", REWARDS) == learned
    assert (events(online), online.durable.state.key) == (4, key)
    # A benchmark that is scored anew, and out of range even, does not teach an old round again.
    assert online.learn("r", [(7.0, "other"), (0.1, "other")]) == learned
    with pytest.raises(BanditError, match="Step 1 of merge request 'never' was never drawn by bandit mine-lints"):
        online.learn("never", REWARDS)
    with pytest.raises(BanditError, match="Step 3 of merge request 'r' was never drawn"):
        online.learn("r", [*REWARDS, (0.5, "key-3")])
    assert events(online) == 4


def test_half_of_a_plan_that_was_learned_is_made_whole(online: OnlineBandit, world: World) -> None:
    chosen(online, world, "r")
    online.durable.learn("r/1", 0.61, evaluation_key="key-1")  # and then it was killed
    assert [r.reward for r in online.learn("r", REWARDS)] == [0.61, 0.72]
    assert events(online) == 4


def test_what_was_drawn_stands_though_features_are_computed_again(online: OnlineBandit, world: World) -> None:
    actions = chosen(online, world, "r")
    near = world.features.with_columns(pl.col(online.encoder.feature_names) * (1.0 + 1e-15))
    plan = online.choose_plan("r", near, target_of("math"), ORDER)
    assert [str(action) for action in plan.actions] == actions
    assert events(online) == 2


@pytest.mark.parametrize("targets", [["math"], ["math", "rag"]])
def test_a_drawn_plan_is_known_from_the_log_alone(online: OnlineBandit, world: World, targets: list[str]) -> None:
    target, domains = target_of(targets), world.catalog.domains
    assert online.drawn_plan("r", domains, target, ORDER) is None
    plan = online.choose_plan("r", world.features, target, ORDER)
    assert OnlineBandit.open(online.folder).drawn_plan("r", domains, target, ORDER) == plan
    assert online.drawn_plan("r", domains, target, [*ORDER, "chat-00"]) is None
    assert events(online) == 2


@pytest.mark.parametrize("bad", [1.5, -0.1, float("nan")])
@pytest.mark.parametrize("step", [1, 2])
def test_a_reward_out_of_range_teaches_none_of_its_plan_s_steps(
    online: OnlineBandit, world: World, bad: float, step: int
) -> None:
    chosen(online, world, "r")
    before = files(online.folder)
    rewards = list(REWARDS)
    rewards[step - 1] = (bad, "key")
    with pytest.raises(BanditError, match=rf"reward {bad!r} of arm .* lies outside \[0, 1\]"):
        online.learn("r", rewards)
    assert files(online.folder) == before


def test_workers_lose_no_reward(online: OnlineBandit, world: World) -> None:
    barrier = Barrier(4)

    def play(number: int) -> None:
        own = OnlineBandit.open(online.folder)
        barrier.wait()
        chosen(own, world, f"r{number}")
        own.learn(f"r{number}", [(0.1 * number, "a"), (0.2 * number, "b")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(play, range(4)))
    rounds = online.durable.rounds()
    assert dict(rounds.select("round_id", "reward").iter_rows()) == {
        f"r{number}/{step}": 0.1 * step * number for number in range(4) for step in (1, 2)
    }
    replayed = online.durable.replay()
    assert (replayed.events, replayed.identical) == (16, True)
    assert replayed.state_key == online.durable.state.key
    assert int(online.durable.state.posterior.updates.sum()) == 8


# --- what joins later


def test_a_new_checkpoint_joins_with_its_features_alone(online: OnlineBandit) -> None:
    grown = make_world(per_domain=4)
    order = ("code-03", "chat-00", "math-03")
    assert not {"code-03", "math-03"} & set(make_world().catalog.checkpoint_ids)
    key = online.durable.state.key
    chosen(online, grown, "r", order)
    assert online.durable.state.key == key
    before = online.durable.state.posterior.copy()
    arm = online.learn("r", [(0.4, "a")])[0].arm
    after = online.durable.state.posterior
    for number, name in enumerate(ACTIONS):
        moved = not np.array_equal(before.mean[number], after.mean[number])
        assert moved == (name == arm)


def test_a_new_task_and_action_serve_the_next_request(online: OnlineBandit, world: World) -> None:
    online.follow_catalog([*ACTIONS, "norm_balanced"], [*DOMAINS, "poetry"])
    moved = world.features.with_columns(task=world.features["task"].replace("math", "poetry"))
    plan = online.choose_plan("r", moved, target_of("poetry"), ("code-00", "rag-01"))
    context = online.durable.rounds().row(0, named=True)
    assert (context["tasks"], context["task_weights"]) == (["poetry"], [1.0])
    assert len(context["probabilities"]) == len(ACTIONS) + 1
    assert min(context["probabilities"]) > 0.0  # the new arm may be drawn
    known, others = online.durable.state, context["arms"].index(str(plan.actions[0]))
    expected, _ = known.posterior.predict(np.array(context["z"]))
    online.learn("r", [(0.9, "key")])
    surprise = 0.9 - expected[others]
    assert online.durable.state.levels["poetry"].mean == pytest.approx(surprise / 2.0)


# --- what it tells


def test_what_it_tells(online: OnlineBandit, world: World) -> None:
    assert online.summary()["mean_reward"] is None
    assert online.learned().height == 0
    chosen(online, world, "r")
    online.learn("r", REWARDS[:1])
    online.follow_catalog(["linear@0.5", "slerp@0.3", "slerp@0.7"], [*DOMAINS, "poetry"])
    told = online.summary()
    assert (told["policy"], told["rounds"], told["pending"], told["mean_reward"]) == ("lints", 2, 1, 0.61)
    assert told["arms"] == ["linear@0.5", "slerp@0.3", "slerp@0.7"]
    assert told["retired"] == ["ties@0.5"]
    assert told["tasks"] == [*DOMAINS, "poetry"]
    assert told["state_key"] == online.durable.state.key
    json.dumps(told)
    learned, posterior = online.learned(), online.durable.state.posterior
    assert learned["round_id"].to_list() == ["r/1"]
    z = np.array(learned["z"][0].to_list())
    mean = [float(np.linalg.solve(a, b) @ z) for a, b in zip(posterior.precision, posterior.moment, strict=True)]
    own = mean[ACTIONS.index(learned["arm"][0])]
    assert learned["expected"][0] == pytest.approx(own, rel=1e-8)
    assert learned["estimated_regret"][0] == pytest.approx(max(mean) - own, rel=1e-6, abs=1e-9)
