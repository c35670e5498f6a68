"""Off-policy estimates: exact expectations over every possible log, brute-force loops, coverage, support, refusals."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from simmerge_core.analysis.bootstrap import cluster_weights
from simmerge_core.bandit import LinTS, LinUCB, Posterior, off_policy
from simmerge_core.bandit.off_policy import (
    Estimate,
    LoggedRounds,
    compare,
    cross_fitted_rewards,
    evaluate_policy,
    greedy_probabilities,
    support_of,
    target_probabilities,
)
from simmerge_core.errors import BanditError

SHARE = np.array([0.3, 0.7])  # of two contexts
LOGGING = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
TARGET = np.array([[0.1, 0.1, 0.8], [0.6, 0.0, 0.4]])
CHANCE = np.array([[0.2, 0.9, 0.5], [0.7, 0.3, 0.4]])  # of reward 1, else 0
MODEL = np.array([[0.9, -0.4, 0.1], [0.2, 3.0, 0.6]])  # far from the truth
CLIP = 1.5


def by_name(estimates: tuple[Estimate, ...]) -> dict[str, Estimate]:
    return {e.name: e for e in estimates}


def log_of(contexts: np.ndarray, arms: np.ndarray, rewards: np.ndarray, logging: np.ndarray = LOGGING) -> LoggedRounds:
    return LoggedRounds(contexts[:, None].astype(float), arms, rewards, logging[contexts, arms])


def random_log(
    seed: int, n: int = 40, arms: int = 4
) -> tuple[LoggedRounds, np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    logging, target = rng.dirichlet(np.ones(arms), n), rng.dirichlet(np.ones(arms), n)
    chosen = np.array([rng.choice(arms, p=row) for row in logging])
    rounds = LoggedRounds(rng.normal(size=(n, 3)), chosen, rng.normal(size=n), logging[np.arange(n), chosen])
    return rounds, target, rng.normal(size=(n, arms)), logging, rng


@pytest.fixture(scope="module")
def every_log() -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Probability of each log of three rounds, with the value and squared standard error of each estimator on it."""
    outcomes = []
    for x, a, r in product(range(2), range(3), (0.0, 1.0)):
        outcomes.append((x, a, r, SHARE[x] * LOGGING[x, a] * (CHANCE[x, a] if r else 1.0 - CHANCE[x, a])))
    chances, values, squares = [], defaultdict(list), defaultdict(list)
    for log in product(outcomes, repeat=3):
        x, a, r, p = (np.array(column) for column in zip(*log, strict=True))
        chances.append(p.prod())
        for e in evaluate_policy(log_of(x, a, r), TARGET[x], MODEL[x], clip=CLIP):
            values[e.name].append(e.value)
            squares[e.name].append(e.standard_error**2)
    return (
        np.array(chances),
        {name: np.array(v) for name, v in values.items()},
        {name: np.array(v) for name, v in squares.items()},
    )


def expectations() -> dict[str, float]:
    weight = TARGET / LOGGING
    direct = (TARGET * MODEL).sum(axis=1)
    truth = float(SHARE @ (TARGET * CHANCE).sum(axis=1))
    kept = np.where(weight <= CLIP, weight, 0.0)
    return {
        "ips": truth,
        "dr": truth,
        "dm": float(SHARE @ direct),
        "clipped_ips": float(SHARE @ (LOGGING * np.minimum(weight, CLIP) * CHANCE).sum(axis=1)),
        "switch_dr": float(SHARE @ (direct + (LOGGING * kept * (CHANCE - MODEL)).sum(axis=1))),
    }


@pytest.mark.parametrize("name", list(expectations()))
def test_the_mean_over_every_possible_log_is_the_known_expectation(name: str, every_log) -> None:
    chances, values, squares = every_log
    assert chances.sum() == pytest.approx(1.0, abs=1e-12)
    mean = chances @ values[name]
    assert mean == pytest.approx(expectations()[name], abs=1e-12)
    # The squared standard error of a mean of independent rounds is unbiased too.
    assert chances @ squares[name] == pytest.approx(chances @ (values[name] - mean) ** 2, abs=1e-12)


def test_an_exact_model_leaves_no_variance() -> None:
    exact = np.array([[0.2, 0.9, 0.5]])
    for arms in product(range(3), repeat=3):
        chosen = np.array(arms)
        zeros = np.zeros(3, dtype=int)
        rounds = log_of(zeros, chosen, exact[0][chosen])
        found = by_name(evaluate_policy(rounds, TARGET[zeros], exact[zeros], clip=CLIP))
        for name in ("dr", "switch_dr", "dm"):
            assert found[name].value == pytest.approx(TARGET[0] @ exact[0], abs=1e-14)
            assert found[name].standard_error == pytest.approx(0.0, abs=1e-15)


def test_without_weight_doubly_robust_is_the_direct_method() -> None:
    rounds, _, model, _, _ = random_log(1)
    target = np.zeros_like(model)
    target[np.arange(len(rounds)), (rounds.arms + 1) % 4] = 1.0
    found = by_name(evaluate_policy(rounds, target, model))
    assert found["dr"].value == found["dm"].value
    assert found["dr"].standard_error == pytest.approx(found["dm"].standard_error, abs=1e-15)
    assert (found["ips"].value, found["ips"].effective_sample_size, found["dr"].largest_weight) == (0.0, 0.0, 0.0)
    assert math.isnan(found["snips"].value)
    assert found["snips"].as_dict()["value"] is None


@given(st.integers(0, 200), st.floats(-100, 100))
@settings(max_examples=30, deadline=None)
def test_a_constant_added_to_rewards_moves_self_normalised_estimates_by_it(seed: int, constant: float) -> None:
    rounds, target, model, _, _ = random_log(seed)
    moved = LoggedRounds(rounds.contexts, rounds.arms, rounds.rewards + constant, rounds.propensities)
    before, after = by_name(evaluate_policy(rounds, target, model)), by_name(evaluate_policy(moved, target, model))
    for name in ("snips", "sndr"):
        assert after[name].value == pytest.approx(before[name].value + constant, abs=1e-9)
    assert after["snips"].standard_error == pytest.approx(before["snips"].standard_error, rel=1e-6)


def brute_force(rounds: LoggedRounds, target: np.ndarray, q: np.ndarray, clip: float, ids: list[int]) -> dict:
    """Value, standard error, effective sample size and largest weight, round by round in plain Python."""
    n, groups = len(rounds), sorted(set(ids))
    w, v, r, rest = [], [], [], []
    for i in range(n):
        a = int(rounds.arms[i])
        w.append(target[i][a] / rounds.propensities[i])
        v.append(sum(target[i][k] * q[i][k] for k in range(len(q[i]))))
        r.append(float(rounds.rewards[i]))
        rest.append(r[i] - q[i][a])
    low, kept = [min(x, clip) for x in w], [x if x <= clip else 0.0 for x in w]
    mean_w, total = sum(w) / n, sum(w)
    snips = sum(w[i] * r[i] for i in range(n)) / total
    extra = sum(w[i] * rest[i] for i in range(n)) / total
    mean_v = sum(v) / n
    out = {}
    for name, value, per_round, used in (
        ("dm", mean_v, v, [1.0] * n),
        ("ips", None, [w[i] * r[i] for i in range(n)], w),
        ("clipped_ips", None, [low[i] * r[i] for i in range(n)], low),
        ("dr", None, [v[i] + w[i] * rest[i] for i in range(n)], w),
        ("switch_dr", None, [v[i] + kept[i] * rest[i] for i in range(n)], kept),
        ("snips", snips, [w[i] * (r[i] - snips) / mean_w for i in range(n)], w),
        ("sndr", mean_v + extra, [v[i] + w[i] * (rest[i] - extra) / mean_w for i in range(n)], w),
    ):
        centre = sum(per_round) / n
        square = sum(sum(per_round[i] - centre for i in range(n) if ids[i] == g) ** 2 for g in groups)
        error = math.sqrt(len(groups) / (len(groups) - 1) * square) / n
        out[name] = (centre if value is None else value, error, sum(used) ** 2 / sum(x * x for x in used), max(used))
    return out


@pytest.mark.parametrize("grouped", [False, True])
def test_estimates_are_those_of_plain_loops(grouped: bool) -> None:
    rounds, target, model, _, rng = random_log(7)
    ids = rng.integers(0, 9, len(rounds)) if grouped else None
    found = evaluate_policy(rounds, target, model, groups=ids, clip=CLIP, level=0.9)
    want = brute_force(rounds, target, model, CLIP, list(range(len(rounds))) if ids is None else ids.tolist())
    groups = len(rounds) if ids is None else len(set(ids.tolist()))
    assert {e.name for e in found} == set(want)
    for e in found:
        assert (e.value, e.standard_error, e.effective_sample_size, e.largest_weight) == pytest.approx(want[e.name])
        reach = student.ppf(0.95, groups - 1) * want[e.name][1]
        assert (e.low, e.high) == pytest.approx((e.value - reach, e.value + reach))
        assert (e.rounds, e.groups) == (len(rounds), groups)


def test_without_a_model_or_clip_there_are_fewer_estimators() -> None:
    rounds, target, _, _, _ = random_log(2)
    assert [e.name for e in evaluate_policy(rounds, target)] == ["ips", "snips"]
    assert [e.name for e in evaluate_policy(rounds, target, clip=2.0)] == ["ips", "snips", "clipped_ips"]


def test_intervals_cover_at_their_level() -> None:
    rng, truth = np.random.default_rng(5), expectations()["ips"]
    hit = defaultdict(list)
    for _ in range(400):
        x = rng.choice(2, 200, p=SHARE)
        a = (rng.random(200)[:, None] > np.cumsum(LOGGING, axis=1)[x]).sum(axis=1)
        r = (rng.random(200) < CHANCE[x, a]).astype(float)
        for e in evaluate_policy(log_of(x, a, r), TARGET[x], MODEL[x]):
            hit[e.name].append(e.low <= truth <= e.high)
    for name in ("ips", "snips", "dr", "sndr"):
        assert 0.92 <= np.mean(hit[name]) <= 0.98
    assert np.mean(hit["dm"]) < 0.1  # a model this wrong is not seen by its own interval


def test_steps_that_share_a_reward_need_their_groups() -> None:
    """Plans of four steps whose reward is that of one merge: only grouped intervals cover."""
    rng, n, steps = np.random.default_rng(9), 60, 4
    ids = np.repeat(np.arange(n), steps)
    target = np.tile([[0.6, 0.4]], (n * steps, 1))
    alone, together, wider = [], [], 0
    for _ in range(300):
        arms = rng.integers(0, 2, n * steps)
        rewards = np.repeat(rng.normal(size=n), steps)  # depends on no arm, so every policy is worth 0
        rounds = LoggedRounds(np.ones((n * steps, 1)), arms, rewards, np.full(n * steps, 0.5))
        one = by_name(evaluate_policy(rounds, target))["snips"]
        other = by_name(evaluate_policy(rounds, target, groups=ids))["snips"]
        assert one.value == other.value
        wider += other.standard_error > one.standard_error
        alone.append(one.low <= 0.0 <= one.high)
        together.append(other.low <= 0.0 <= other.high)
    assert wider == 300
    assert np.mean(alone) < 0.8
    assert 0.92 <= np.mean(together) <= 0.98


def test_the_bootstrap_is_that_of_resampled_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, target, model, _, rng = random_log(11)
    ids = rng.integers(0, 12, len(rounds))
    found = by_name(evaluate_policy(rounds, target, model, groups=ids, draws=500, seed=3))
    weights = cluster_weights(ids[:, None], draws=500, seed=3)
    w = target[np.arange(len(rounds)), rounds.arms] / rounds.propensities
    ips = weights @ (w * rounds.rewards) / weights.sum(axis=1)
    snips = weights @ (w * rounds.rewards) / (weights @ w)
    for name, values in (("ips", ips), ("snips", snips)):
        assert (found[name].low, found[name].high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    monkeypatch.setattr(off_policy, "_BLOCK", 100)
    assert by_name(evaluate_policy(rounds, target, model, groups=ids, draws=500, seed=3)) == found


@pytest.mark.parametrize("draws", [0, 200])
def test_a_difference_is_paired(draws: int) -> None:
    rounds, first, model, _, rng = random_log(13, n=300)
    second = 0.9 * first + 0.1 * rng.dirichlet(np.ones(4), len(rounds))  # nearly the same policy
    paired = by_name(compare(rounds, first, second, model, clip=CLIP, draws=draws))
    one, other = (by_name(evaluate_policy(rounds, t, model, clip=CLIP)) for t in (first, second))
    for name, e in paired.items():
        assert e.value == pytest.approx(one[name].value - other[name].value)
        assert e.standard_error < 0.5 * math.hypot(one[name].standard_error, other[name].standard_error)
        assert e.low < e.value < e.high
    rows = np.arange(len(rounds))
    w = (first - second)[rows, rounds.arms] / rounds.propensities
    each = ((first - second) * model).sum(axis=1) + w * (rounds.rewards - model[rows, rounds.arms])
    assert paired["dr"].standard_error == pytest.approx(each.std(ddof=1) / math.sqrt(len(rounds)))
    same = by_name(compare(rounds, first, first, model, draws=draws))
    assert all((e.value, e.low, e.high) == (0.0, 0.0, 0.0) for e in same.values())


def test_support_is_the_targets_share_on_arms_that_could_be_logged() -> None:
    rounds, target, model, logging, _ = random_log(17)
    never = (rounds.arms + 1) % 4
    closed = logging.copy()
    closed[np.arange(len(rounds)), never] = 0.0
    closed /= closed.sum(axis=1, keepdims=True)
    p = closed[np.arange(len(rounds)), rounds.arms]
    partly = LoggedRounds(rounds.contexts, rounds.arms, rounds.rewards, p, closed)
    found = by_name(evaluate_policy(partly, target, model))
    rare = closed < 1.0 / len(rounds)  # so rare that the log has hardly any
    assert rare.sum() > len(rounds)
    want = 1.0 - (target * rare).sum(axis=1).mean()
    assert found["ips"].support == pytest.approx(want)
    assert {name: e.unsupported for name, e in found.items()} == {
        "dm": False,
        "ips": True,
        "snips": True,
        "dr": True,
        "sndr": True,
    }
    assert not any(e.unsupported for e in evaluate_policy(partly, closed, model))
    assert support_of(LoggedRounds(rounds.contexts, rounds.arms, rounds.rewards, p), target) == 1.0  # not known


def test_a_deterministic_log_says_by_itself_what_was_never_chosen() -> None:
    bandit = LinUCB(["a", "b", "c"], 2)
    contexts = np.random.default_rng(0).normal(size=(30, 2))
    probabilities = target_probabilities(bandit, contexts)
    arms = probabilities.argmax(axis=1)
    rounds = LoggedRounds(contexts, arms, np.zeros(30), probabilities[np.arange(30), arms])
    uniform = np.full((30, 3), 1 / 3)
    found = by_name(evaluate_policy(rounds, uniform))
    assert found["ips"].support == pytest.approx(1 / 3)
    assert found["ips"].unsupported
    assert not by_name(evaluate_policy(rounds, probabilities))["ips"].unsupported


def test_probabilities_of_a_bandit_and_of_a_greedy_policy() -> None:
    bandit = LinTS(["a", "b", "c"], 2, mixing=0.1)
    bandit.update(np.array([1.0, 0.0]), "b", 1.0)
    bandit.retire_arm("c")
    contexts = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    key, found = bandit.key, target_probabilities(bandit, contexts)
    assert bandit.key == key
    for row, context in zip(found, contexts, strict=True):
        assert row.tolist() == bandit.probabilities(context).tolist()
    assert found[:, 2].tolist() == [0.0, 0.0]
    greedy = greedy_probabilities(np.array([[1.0, 3.0, 3.0], [-np.inf, -2.0, -5.0]]))
    assert greedy.tolist() == [[0.0, 0.5, 0.5], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize("grouped", [False, True])
def test_cross_fitted_predictions_come_from_the_other_folds(grouped: bool) -> None:
    rounds, _, _, _, rng = random_log(19, n=60)
    ids = rng.integers(0, 15, 60) if grouped else None
    arguments = {"regularisation": 0.7, "folds": 4, "seed": 2, "groups": ids}
    found = cross_fitted_rewards(rounds.contexts, rounds.arms, rounds.rewards, 4, **arguments)
    # Rounds whose predictions do not move with a round's reward are those of its fold.
    fold = np.full(60, -1)
    for i in range(60):
        if fold[i] < 0:
            changed = rounds.rewards.copy()
            changed[i] += 1.0
            moved = cross_fitted_rewards(rounds.contexts, rounds.arms, changed, 4, **arguments)
            fold[(moved == found).all(axis=1)] = i
    assert len(set(fold.tolist())) == 4
    if ids is not None:
        assert all(len(set(fold[ids == g].tolist())) == 1 for g in set(ids.tolist()))
    for i, arm in product(range(60), range(4)):
        z = rounds.contexts[(fold != fold[i]) & (rounds.arms == arm)]
        r = rounds.rewards[(fold != fold[i]) & (rounds.arms == arm)]
        ridge = np.linalg.solve(z.T @ z + 0.7 * np.eye(3), z.T @ r)
        assert found[i, arm] == pytest.approx(rounds.contexts[i] @ ridge, abs=1e-12)


def test_a_posterior_is_a_reward_model() -> None:
    rounds, target, _, _, rng = random_log(23)
    model = Posterior.prior(4, 3, regularisation=1.0)
    model.observe(rng.normal(size=(50, 3)), rng.normal(size=(50, 4)))
    predicted = np.array([model.predict(z)[0] for z in rounds.contexts])
    by_model, by_matrix = evaluate_policy(rounds, target, model), evaluate_policy(rounds, target, predicted)
    for one, other in zip(by_model, by_matrix, strict=True):
        assert (one.name, one.value) == (other.name, pytest.approx(other.value, abs=1e-12))


def test_the_order_of_rounds_says_nothing() -> None:
    rounds, target, model, _, rng = random_log(29)
    ids, order = rng.integers(0, 9, len(rounds)), rng.permutation(len(rounds))
    turned = LoggedRounds(*(a[order] for a in (rounds.contexts, rounds.arms, rounds.rewards, rounds.propensities)))
    one = evaluate_policy(rounds, target, model, groups=ids)
    other = evaluate_policy(turned, target[order], model[order], groups=ids[order])
    for a, b in zip(one, other, strict=True):
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"propensities": [0.5, 0.0, 0.5]}, "Round 1 of the log has the propensity 0.0"),
        ({"propensities": [0.5, 0.5, math.nan]}, "Round 2 of the log has the propensity nan"),
        ({"propensities": [1.5, 0.5, 0.5]}, "Round 0 of the log has the propensity 1.5"),
        ({"rewards": [0.0, math.inf, 0.0]}, "Round 1 of the log has the reward inf"),
        ({"arms": [0, -1, 0]}, "Round 1 of the log has the arm -1"),
        ({"arms": [0.0, 1.0, 0.0]}, "type float64"),
        ({"contexts": [[0.0], [math.nan], [0.0]]}, "context of round 1"),
        ({"contexts": [[0.0], [0.0]]}, "shapes"),
        ({"rewards": [[0.0], [0.0], [0.0]]}, "shapes"),
        ({"propensities": [[0.5], [0.5], [0.5]]}, "shapes"),
        ({"arms": 1}, "shapes"),
        ({"logging": [[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]]}, "Round 2 of the log has the propensity 0.5"),
        ({"logging": [[0.5, 0.5]] * 2}, r"shape \(2, 2\)"),
        ({"logging": [[0.5, 0.5], [0.5, 0.4], [0.5, 0.5]]}, "logged probabilities of round 1 are no distribution"),
        ({"logging": [[1.0]] * 3}, "names arm 1"),
    ],
)
def test_a_log_that_cannot_be_used_is_refused(change: dict, says: str) -> None:
    usable = {
        "contexts": [[0.0]] * 3,
        "arms": [0, 1, 0],
        "rewards": [0.0, 1.0, 0.0],
        "propensities": [0.5, 0.5, 0.5],
        "logging": [[0.5, 0.5]] * 3,
    }
    LoggedRounds(**usable)
    with pytest.raises(BanditError, match=says):
        LoggedRounds(**{**usable, **change})


def test_one_round_is_refused() -> None:
    with pytest.raises(BanditError, match="A log of 1 rounds"):
        LoggedRounds(np.zeros((1, 1)), np.zeros(1, dtype=int), np.zeros(1), np.ones(1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": [[0.5, 0.5], [0.5, 0.6], [0.5, 0.5]]}, "target's probabilities of round 1 are no distribution"),
        ({"target": [[1.5, -0.5]] * 3}, "no distribution"),
        ({"target": [[math.nan, 0.5]] * 3}, "no distribution"),
        ({"target": [[0.5, 0.5]]}, r"shape \(1, 2\)"),
        ({"target": [[1.0]] * 3}, "names arm 1"),
        ({"target": [[0.5, 0.25, 0.25]] * 3}, "3 arms, and the log of 2"),
        ({"rewards_model": [[0.5, 0.5, 0.5]] * 3}, r"shape \(3, 3\)"),
        ({"rewards_model": [[0.5, math.nan]] * 3}, "finite"),
        ({"rewards_model": Posterior.prior(2, 4, regularisation=1.0)}, "4 coordinates"),
        ({"groups": [0, 1]}, r"groups have shape \(2,\)"),
        ({"groups": [0, 0, 0]}, "one group"),
        ({"clip": 0.0}, "clip 0"),
        ({"level": 1.0}, "level 1"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(change: dict, says: str) -> None:
    rounds = LoggedRounds([[0.0]] * 3, [0, 1, 0], [0.0, 1.0, 0.0], [0.5] * 3, [[0.5, 0.5]] * 3)
    with pytest.raises(BanditError, match=says):
        evaluate_policy(rounds, **{"target": [[0.5, 0.5]] * 3, **change})


def test_other_refusals() -> None:
    rounds = LoggedRounds([[0.0]] * 3, [0, 1, 0], [0.0, 1.0, 0.0], [0.5] * 3)
    with pytest.raises(BanditError, match="2 and 3 arms"):
        compare(rounds, [[0.5, 0.5]] * 3, [[0.5, 0.5, 0.0]] * 3)
    with pytest.raises(BanditError, match="4 folds"):
        cross_fitted_rewards(rounds.contexts, rounds.arms, rounds.rewards, 2, folds=4)
    with pytest.raises(BanditError, match="names arm 1"):
        cross_fitted_rewards(rounds.contexts, rounds.arms, rounds.rewards, 1, folds=2)
    with pytest.raises(BanditError, match="no contexts"):
        target_probabilities(LinTS(["a"], 1), [])
    for predicted in ([[1.0, math.nan]], [[-math.inf, -math.inf]], [1.0, 2.0]):
        with pytest.raises(BanditError, match="greatest number"):
            greedy_probabilities(np.array(predicted))
