"""The merge steps of a plan as rounds: contexts by App. D's rules, and what an arm means on a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from bandit_world import ACTIONS, World, encoded_by_hand, make_world
from hypothesis import given
from hypothesis import strategies as st

from simmerge_core.bandit import (
    BanditModel,
    Context,
    Encoder,
    LinearBandit,
    PlanStep,
    WarmStart,
    choose_plan,
    expected,
    plan_step,
    step_blocks,
)
from simmerge_core.errors import BanditError
from simmerge_core.features.columns import FEATURES
from simmerge_core.operators.actions import Action, parse_action
from simmerge_core.planning import pair_table, search, target_of
from simmerge_core.planning.pairs import PairTable
from simmerge_core.plans import Plan
from simmerge_core.selector.block import block_of

UNITS = {column.name: column.unit for column in FEATURES}
ORDER = ("code-00", "rag-01", "chat-02", "math-01")  # merged in this order; the last holds math's expert
ALPHAS = (0.3, 0.8)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def warm(world: World) -> WarmStart:
    return world.warm(exploration=0.2)


@pytest.fixture(scope="module")
def bandit(warm: WarmStart) -> LinearBandit:
    return warm.bandit


@pytest.fixture(scope="module")
def encoder(warm: WarmStart) -> Encoder:
    return warm.encoder


@pytest.fixture(scope="module")
def table(world: World, encoder: Encoder) -> PairTable:
    return table_of(world, encoder, ORDER, ("math",))


def table_of(world: World, encoder: Encoder, order: Sequence[str], tasks: Sequence[str]) -> PairTable:
    return pair_table(world.features, checkpoints=order, tasks=tasks, feature_names=encoder.feature_names)


def shares(alphas: Sequence[float]) -> list[float]:
    """Weight of each checkpoint of an intermediate: what it was added with, and what all later ones left of it."""
    found = []
    for position in range(len(alphas) + 1):
        own = alphas[position - 1] if position else 1.0
        for later in alphas[position:]:
            own *= 1.0 - later
        found.append(own)
    return found


def by_hand(
    world: World, names: Sequence[str], order: Sequence[str], alphas: Sequence[float], task: str, *, turned: bool
) -> list[float]:
    """App. D: convex combinations of the pairwise values, cosines clipped, column by column in Python's floats."""
    *merged, added = order
    pairs = {(a, b): i for i, (a, b, t) in enumerate(world.features.select("a", "b", "task").iter_rows()) if t == task}
    rows = [world.features.row(pairs[(added, m) if turned else (m, added)], named=True) for m in merged]
    found = []
    for name in names:
        value = sum(share * row[name] for share, row in zip(shares(alphas), rows, strict=True))
        found.append(min(max(value, -1.0), 1.0) if UNITS[name] == "cosine" else value)
    return found


@pytest.mark.parametrize("last_is_expert", [True, False])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_context_of_a_step_is_that_of_propagated_features(
    world: World, encoder: Encoder, k: int, last_is_expert: bool
) -> None:
    order = ORDER[-k:] if last_is_expert else ORDER[::-1][:k]  # math's expert added last, or begun with
    alphas = ALPHAS[: k - 2]
    assert sum(shares(alphas)) == pytest.approx(1.0)
    step = plan_step(encoder, table_of(world, encoder, order, ("math",)), target_of("math"), order, alphas)
    assert step.turned == last_is_expert
    x = by_hand(world, encoder.feature_names, order, alphas, "math", turned=last_is_expert)
    np.testing.assert_allclose(step.context.z, encoded_by_hand(encoder, np.array(x), "math"), rtol=1e-10, atol=1e-12)
    assert step.context.tasks == (("math", 1.0),)
    assert step.context.source == encoder.key


def test_cosines_are_clipped(table: PairTable) -> None:
    x = table.x.copy()
    cosine = table.feature_names.index("weight_cosine")
    x[0, :, :, cosine] = 1.0 + 1e-9  # as far as the tables let rounding go
    clipped = PairTable(table.checkpoints, table.domains, table.tasks, table.feature_names, x)
    (block,), _ = step_blocks(clipped, target_of("math"), ORDER, ALPHAS)
    assert block.x[0, cosine] == 1.0


@pytest.mark.parametrize(
    ("order", "turned", "sides"),
    [
        (("code-00", "math-00"), True, (True, False)),
        (("math-00", "code-00"), False, (True, False)),
        (("code-00", "math-00", "rag-00"), False, (True, False)),
        (("math-00", "math-01"), False, (True, True)),
        (("code-00", "rag-00"), False, (False, False)),
        (("code-00", "rag-00", "math-02"), True, (True, False)),
    ],
)
def test_the_side_with_the_expert_comes_first(
    world: World, encoder: Encoder, order: tuple[str, ...], turned: bool, sides: tuple[bool, bool]
) -> None:
    table = table_of(world, encoder, order, ("math",))
    (block,), found = step_blocks(table, target_of("math"), order, [0.3] * (len(order) - 2))
    assert found == turned
    assert (bool(block.a_expert[0]), bool(block.b_expert[0])) == sides


@given(st.sampled_from(["linear", "slerp", "ties"]), st.integers(0, 100), st.booleans())
def test_arm_and_action_are_inverse(operator: str, percent: int, turned: bool) -> None:
    step = PlanStep(Context(np.zeros(2)), turned)
    action = Action(operator, percent / 100)
    assert step.arm(step.action(str(action))) == action
    assert step.action(str(step.arm(action))) == action
    expected = round(1 - percent / 100, 2) if turned else percent / 100
    assert step.action(str(action)).alpha == pytest.approx(expected, abs=1e-12)
    assert step.action(str(action)).operator == operator


def test_several_tasks_are_seen_as_ordered(world: World, encoder: Encoder) -> None:
    order, target = ("rag-00", "code-00", "math-00"), target_of(["math", "code", "rag"], weights=[2.0, 1.0, 1.0])
    step = plan_step(encoder, table_of(world, encoder, order, target.tasks), target, order, [0.3])
    assert not step.turned
    assert step.context.tasks == (("math", 0.5), ("code", 0.25), ("rag", 0.25))
    z = [
        encoded_by_hand(
            encoder, np.array(by_hand(world, encoder.feature_names, order, [0.3], task, turned=False)), task
        )
        for task in target.tasks
    ]
    np.testing.assert_allclose(step.context.z, np.array([0.5, 0.25, 0.25]) @ np.array(z), rtol=1e-10, atol=1e-12)
    blocks, _ = step_blocks(table_of(world, encoder, order, target.tasks), target, order, [0.3])
    assert [(bool(b.a_expert[0]), bool(b.b_expert[0])) for b in blocks] == [(False, True), (True, False), (True, False)]


def test_each_step_is_chosen_on_what_the_steps_before_have_made(
    world: World, encoder: Encoder, table: PairTable
) -> None:
    seen: list[tuple[np.ndarray, int]] = []

    def choose(context: Context, step: int) -> str:
        seen.append((context.z, step))
        return ("slerp@0.3", "slerp@0.7", "slerp@0.3")[step - 1]

    plan = choose_plan(choose, encoder, table, target_of("math"), ORDER)
    # The last step adds math's expert: it is turned, and the arm means the mirrored action.
    assert plan == Plan(ORDER, tuple(map(parse_action, ("slerp@0.3", "slerp@0.7", "slerp@0.7"))))
    assert [step for _, step in seen] == [1, 2, 3]
    for number, (z, _) in enumerate(seen):
        turned = number == 2
        x = by_hand(world, encoder.feature_names, ORDER[: number + 2], (0.3, 0.7)[:number], "math", turned=turned)
        np.testing.assert_allclose(z, encoded_by_hand(encoder, np.array(x), "math"), rtol=1e-10, atol=1e-12)


def test_a_turned_step_hands_its_mirrored_alpha_on(world: World, encoder: Encoder) -> None:
    order = ("code-00", "math-01", "rag-01")  # the expert is added first: step 1 is turned, step 2 is not
    seen = []

    def choose(context: Context, step: int) -> str:
        seen.append(context.z)
        return "slerp@0.3"

    plan = choose_plan(choose, encoder, table_of(world, encoder, order, ("math",)), target_of("math"), order)
    assert [str(a) for a in plan.actions] == ["slerp@0.7", "slerp@0.3"]
    x = by_hand(world, encoder.feature_names, order, [0.7], "math", turned=False)
    np.testing.assert_allclose(seen[1], encoded_by_hand(encoder, np.array(x), "math"), rtol=1e-10, atol=1e-12)


# --- what a bandit expects of a plan


def weights_of(bandit: LinearBandit) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and covariance of each arm, by solving with its precision."""
    p = bandit.posterior
    mean = np.array([np.linalg.solve(a, b) for a, b in zip(p.precision, p.moment, strict=True)])
    return mean, np.linalg.inv(p.precision)


def test_expectations_of_a_plan_s_steps(world: World, encoder: Encoder, bandit: LinearBandit) -> None:
    order, target = ("code-00", "math-01", "rag-01"), target_of("math")
    plan = Plan(order, tuple(map(parse_action, ("slerp@0.7", "ties@0.5"))))
    told = bandit.copy()
    told.retire_arm("ties@0.5")  # what a retired arm is expected to bring is known, too
    found = expected(encoder, told, table_of(world, encoder, order, ("math",)), target, plan)
    mean, covariance = weights_of(bandit)
    for number, arm in enumerate(("slerp@0.3", "ties@0.5")):  # as seen with the expert first
        turned, at = number == 0, ACTIONS.index(arm)
        x = by_hand(world, encoder.feature_names, order[: number + 2], [0.7][:number], "math", turned=turned)
        z = np.array(encoded_by_hand(encoder, np.array(x), "math"))
        assert found[number][0] == pytest.approx(mean[at] @ z, rel=1e-8)
        assert found[number][1] == pytest.approx(0.2 * np.sqrt(z @ covariance[at] @ z), rel=1e-8)


def test_an_arm_that_is_not_there_is_refused(encoder: Encoder, bandit: LinearBandit, table: PairTable) -> None:
    plan = Plan(ORDER[:2], (parse_action("slerp@0.4"),))
    with pytest.raises(BanditError, match=r"no arm 'slerp@0\.4'"):
        expected(encoder, bandit, table, target_of("math"), plan)


def test_search_ranks_by_the_posterior_mean(world: World, encoder: Encoder, bandit: LinearBandit) -> None:
    told = bandit.copy()
    told.retire_arm("linear@0.5")
    model = BanditModel(encoder, told)
    assert (model.name, [str(a) for a in model.actions]) == ("lints", ["slerp@0.3", "slerp@0.7", "ties@0.5"])
    pool = sorted(world.catalog.checkpoint_ids)[::2]
    best = search(model, world.features, pool, "math", k=3, top=1).row(0, named=True)
    plan = Plan(tuple(best["order"]), tuple(map(parse_action, best["actions"])))
    table = table_of(world, encoder, plan.checkpoints, ("math",))
    steps = expected(encoder, told, table, target_of("math"), plan)
    np.testing.assert_allclose(best["step_utilities"], [mean for mean, _ in steps], rtol=1e-9)


def test_the_model_predicts_what_the_bandit_does(world: World, encoder: Encoder, bandit: LinearBandit) -> None:
    told = bandit.copy()
    told.retire_arm("slerp@0.3")
    told.add_task("rag")  # as if the encoder had none of its labels
    z = Context(np.eye(told.dimension)[-1], told.source, (("rag", 1.0),))
    told.update(z, "ties@0.5", 0.9)
    features = world.features[::50]
    found = BanditModel(encoder, told).predict(features)
    mean, covariance = weights_of(told)
    block = block_of(features, encoder.feature_names)
    rows = np.array([encoded_by_hand(encoder, x, str(task)) for x, task in zip(block.x, block.tasks, strict=True)])
    surprise = 0.9 - weights_of(bandit)[0][ACTIONS.index("ties@0.5")] @ z.z
    arms = [ACTIONS.index(a) for a in ("linear@0.5", "slerp@0.7", "ties@0.5")]
    level = np.where(block.tasks == "rag", surprise / 2.0, 0.0)
    np.testing.assert_allclose(found.utilities, rows @ mean[arms].T + level[:, None], rtol=1e-8)
    spread = np.sqrt(np.einsum("nd,kde,ne->nk", rows, covariance[arms], rows))
    np.testing.assert_allclose(found.uncertainty, 0.2 * spread, rtol=1e-8)
