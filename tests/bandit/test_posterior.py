"""Rank-one updates against the batch posterior, which float64 brute force computes from all contexts at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from simmerge_core.bandit import Posterior
from simmerge_core.errors import BanditError

Contexts = Callable[[np.random.Generator, int], np.ndarray]

D, ARMS = 16, 10
ROUNDS = 10_000
SPREAD = np.logspace(-3, 3, D)  # scales of coordinates, or of contexts, that a stream may mix


def batch(
    z: np.ndarray, rewards: np.ndarray, *, regularisation: float, mean: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(d,) mean and (d, d) A⁻¹ by the normal equations."""
    centre = np.zeros(z.shape[1]) if mean is None else mean
    precision = regularisation * np.eye(z.shape[1]) + z.T @ z
    return np.linalg.solve(precision, regularisation * centre + z.T @ rewards), np.linalg.inv(precision)


def least_squares(z: np.ndarray, rewards: np.ndarray, *, regularisation: float) -> tuple[np.ndarray, np.ndarray]:
    """The same from a QR factorisation: it never squares the contexts, so it keeps digits where `batch` loses them."""
    d = z.shape[1]
    rows = np.vstack([np.sqrt(regularisation) * np.eye(d), z])
    inverse = np.linalg.inv(np.linalg.qr(rows, mode="r"))
    return np.linalg.lstsq(rows, np.concatenate([np.zeros(d), rewards]), rcond=None)[0], inverse @ inverse.T


def covariance(posterior: Posterior, arm: int) -> np.ndarray:
    return posterior.factor[arm].T @ posterior.factor[arm]


def learned(z: np.ndarray, rewards: np.ndarray, *, regularisation: float = 1.0) -> Posterior:
    """One arm that took the rewards one at a time."""
    posterior = Posterior.prior(1, z.shape[1], regularisation=regularisation)
    for context, reward in zip(z, rewards, strict=True):
        posterior.update(0, context, float(reward))
    return posterior


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, in units of the largest expected number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def is_factor(factor: np.ndarray) -> bool:
    return bool((np.triu(factor, 1) == 0.0).all() and (np.diagonal(factor, axis1=1, axis2=2) > 0.0).all())


@pytest.fixture(scope="module")
def stream() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contexts, arms and rewards of 10,000 rounds; arms that are chosen more and less often, as in practice."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(ROUNDS, D)) + rng.normal(size=D)
    arms = rng.choice(ARMS, size=ROUNDS, p=np.arange(1, ARMS + 1) / (ARMS * (ARMS + 1) / 2))
    return z, arms, 0.5 + 0.1 * np.einsum("ij,ij->i", z, rng.normal(size=(ARMS, D))[arms]) + rng.normal(size=ROUNDS)


def test_ten_thousand_updates_equal_the_batch_posterior(stream: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    z, arms, rewards = stream
    prior = np.random.default_rng(1).normal(size=(ARMS, D))
    posterior = Posterior.prior(ARMS, D, regularisation=0.5, mean=prior)
    for context, arm, reward in zip(z, arms, rewards, strict=True):
        posterior.update(int(arm), context, float(reward))
    for arm in range(ARMS):
        own = arms == arm
        mean, inverse = batch(z[own], rewards[own], regularisation=0.5, mean=prior[arm])
        np.testing.assert_allclose(posterior.mean[arm], mean, rtol=0, atol=1e-8)
        np.testing.assert_allclose(covariance(posterior, arm), inverse, rtol=0, atol=1e-8)
        at, deviation = posterior.predict(z[0])
        assert at[arm] == pytest.approx(z[0] @ mean, abs=1e-8)
        assert deviation[arm] == pytest.approx(np.sqrt(z[0] @ inverse @ z[0]), abs=1e-8)
    assert posterior.updates.sum() == ROUNDS
    assert is_factor(posterior.factor)


def test_ten_thousand_updates_of_one_arm_equal_the_batch_posterior(
    stream: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    z, _, rewards = stream
    posterior = learned(z, rewards)
    mean, inverse = batch(z, rewards, regularisation=1.0)
    assert apart(posterior.mean[0], mean) < 1e-12
    assert apart(covariance(posterior, 0), inverse) < 1e-12


def _by_context(rng: np.random.Generator, rounds: int) -> np.ndarray:
    return rng.normal(size=(rounds, D)) * 10.0 ** rng.uniform(-3, 3, (rounds, 1))


def _by_coordinate(rng: np.random.Generator, rounds: int) -> np.ndarray:
    return rng.normal(size=(rounds, D)) * SPREAD


def _collinear(rng: np.random.Generator, rounds: int) -> np.ndarray:
    """Multiples of one context but for a millionth."""
    line = 1e3 * rng.normal(size=D)
    return line * rng.uniform(0.5, 1.5, (rounds, 1)) + 1e-3 * rng.normal(size=(rounds, D))


def _large_first(rng: np.random.Generator, rounds: int) -> np.ndarray:
    """A few contexts that say nearly everything about the arm, then small ones."""
    z = rng.normal(size=(rounds, D))
    z[:D] *= 1e6
    return z


@pytest.mark.parametrize("make", [_by_context, _by_coordinate, _collinear, _large_first])
@pytest.mark.parametrize("rounds", [20, 255, 256, 700])
def test_an_ill_conditioned_stream_loses_no_more_than_its_square_root(make: Contexts, rounds: int) -> None:
    """Condition numbers of A reach 1e13: its inverse may be off by that times 1e-16, a factor of it by the root."""
    z = make(np.random.default_rng(3), rounds)
    rewards = np.random.default_rng(4).random(rounds)
    posterior = learned(z, rewards)
    mean, inverse = least_squares(z, rewards, regularisation=1.0)
    assert apart(covariance(posterior, 0), inverse) < 1e-8
    assert is_factor(posterior.factor)
    # The mean comes from A⁻¹ and Σ r z, so it has the condition of A itself.
    condition = np.linalg.cond(inverse)
    assert apart(posterior.mean[0], mean) < 1e-15 * condition + 1e-10
    predicted, deviation = posterior.predict(z[-1])
    assert deviation[0] == pytest.approx(np.sqrt(z[-1] @ inverse @ z[-1]), rel=1e-6)
    assert abs(predicted[0] - z[-1] @ mean) < 1e-4


def test_ten_thousand_updates_of_an_ill_conditioned_stream() -> None:
    rng = np.random.default_rng(5)
    z = _by_coordinate(rng, ROUNDS) * 10.0 ** rng.uniform(-1, 1, (ROUNDS, 1))
    rewards = rng.random(ROUNDS)
    posterior = learned(z, rewards)
    mean, inverse = least_squares(z, rewards, regularisation=1.0)
    # In units of each coordinate's own deviation: otherwise the finest ones would not count.
    scale = np.sqrt(np.diag(inverse))
    assert np.abs((covariance(posterior, 0) - inverse) / np.outer(scale, scale)).max() < 1e-8
    assert np.abs((posterior.mean[0] - mean) / scale).max() < 1e-8


def test_contexts_on_one_line_are_learned_however_large() -> None:
    """A is singular but for the prior there, and its own factorisation fails: updates must not need one."""
    line = 1e9 * np.random.default_rng(0).normal(size=D)
    posterior = Posterior.prior(1, D, regularisation=1.0)
    for n in range(600):
        posterior.update(0, line, 0.25 + 0.5 * (n % 2))
    mean, deviation = posterior.predict(line)
    assert mean[0] == pytest.approx(0.5, abs=1e-6)
    assert deviation[0] == pytest.approx(600**-0.5, rel=1e-6)
    assert is_factor(posterior.factor)
    across = np.linalg.qr(line[:, None], mode="complete")[0][:, 1]
    assert posterior.predict(across)[1][0] == pytest.approx(1.0, rel=1e-4)  # nothing is known there


@pytest.mark.parametrize(
    ("make", "rounds", "tolerance"),
    [
        (lambda rng, n: rng.normal(size=(n, D)), 500, 1e-12),
        (_by_coordinate, 500, 1e-10),
        (_collinear, 300, 1e-8),
        (lambda rng, n: 1e9 * np.outer(rng.uniform(0.5, 1.5, n), np.arange(1.0, D + 1)), 40, 1e-4),
    ],
)
def test_observing_at_once_equals_one_at_a_time(make: Contexts, rounds: int, tolerance: float) -> None:
    rng = np.random.default_rng(6)
    z, rewards = make(rng, rounds), rng.random((rounds, 2))
    at_once = Posterior.prior(2, D, regularisation=1.0)
    at_once.observe(z[: rounds // 2], rewards[: rounds // 2])
    at_once.observe(z[rounds // 2 :], rewards[rounds // 2 :])
    for arm in range(2):
        single = learned(z, rewards[:, arm])
        assert apart(covariance(at_once, arm), covariance(single, 0)) < tolerance
        np.testing.assert_allclose(at_once.precision[arm], single.precision[0], rtol=1e-12)
        fitted = z @ np.stack([at_once.mean[arm], single.mean[0]], axis=1)
        np.testing.assert_allclose(fitted[:, 0], fitted[:, 1], atol=max(tolerance, 1e-8))
    assert is_factor(at_once.factor)
    assert not at_once.updates.any()


def test_a_weight_counts_labels_so_many_times() -> None:
    rng = np.random.default_rng(7)
    z, rewards = rng.normal(size=(30, D)), rng.random((30, 3))
    for weight in (3.0, 0.25):
        posterior = Posterior.prior(3, D, regularisation=2.0)
        posterior.observe(z, rewards, weight=weight)
        for arm in range(3):
            root = np.sqrt(weight)
            mean, inverse = batch(root * z, root * rewards[:, arm], regularisation=2.0)
            np.testing.assert_allclose(posterior.mean[arm], mean, atol=1e-12)
            np.testing.assert_allclose(covariance(posterior, arm), inverse, atol=1e-12)
    once, thrice = (Posterior.prior(3, D, regularisation=2.0) for _ in range(2))
    once.observe(z, rewards, weight=3.0)
    for _ in range(3):
        thrice.observe(z, rewards)
    np.testing.assert_allclose(once.mean, thrice.mean, atol=1e-12)


def test_a_missing_reward_is_not_a_reward() -> None:
    rng = np.random.default_rng(8)
    z, rewards = rng.normal(size=(60, D)), rng.random((60, 3))
    rewards[rng.random((60, 3)) < 0.4] = np.nan
    rewards[:, 2] = np.nan
    posterior = Posterior.prior(3, D, regularisation=1.0)
    posterior.observe(z, rewards)
    for arm in range(2):
        seen = ~np.isnan(rewards[:, arm])
        mean, inverse = batch(z[seen], rewards[seen, arm], regularisation=1.0)
        np.testing.assert_allclose(posterior.mean[arm], mean, atol=1e-12)
        np.testing.assert_allclose(covariance(posterior, arm), inverse, atol=1e-12)
    np.testing.assert_array_equal(posterior.factor[2], np.eye(D))
    assert not posterior.mean[2].any()


def test_contexts_of_single_precision_are_summed_in_double() -> None:
    rng = np.random.default_rng(9)
    z, rewards = rng.normal(size=(200, D)).astype(np.float32), rng.random((200, 1)).astype(np.float32)
    posterior = Posterior.prior(1, D, regularisation=1.0)
    posterior.observe(z, rewards)
    mean, _ = batch(z.astype(np.float64), rewards[:, 0].astype(np.float64), regularisation=1.0)
    np.testing.assert_allclose(posterior.mean[0], mean, atol=1e-13)


def test_a_later_arm_begins_at_its_prior_and_leaves_the_others() -> None:
    rng = np.random.default_rng(11)
    z, rewards, centre = rng.normal(size=(50, D)), rng.random(50), rng.normal(size=D)
    old = learned(z, rewards, regularisation=0.3)
    kept = old.copy()
    new = old.with_arm(regularisation=0.3, mean=centre)
    for name in ("precision", "moment", "factor", "mean", "updates"):
        assert getattr(new, name)[0].tobytes() == getattr(kept, name)[0].tobytes()
    np.testing.assert_array_equal(new.mean[1], centre)
    for context, reward in zip(z, rewards, strict=True):
        new.update(1, context, float(reward))
    mean, inverse = batch(z, rewards, regularisation=0.3, mean=centre)
    np.testing.assert_allclose(new.mean[1], mean, atol=1e-12)
    np.testing.assert_allclose(covariance(new, 1), inverse, atol=1e-12)
    assert new.factor[0].tobytes() == old.factor[0].tobytes() == kept.factor[0].tobytes()


def test_a_copy_learns_alone() -> None:
    rng = np.random.default_rng(12)
    posterior = learned(rng.normal(size=(5, D)), rng.random(5))
    other = posterior.copy()
    before = posterior.factor.tobytes(), posterior.mean.tobytes(), posterior.precision.tobytes()
    other.update(0, rng.normal(size=D), 1.0)
    assert (posterior.factor.tobytes(), posterior.mean.tobytes(), posterior.precision.tobytes()) == before
    assert posterior.updates[0] == 5


@pytest.mark.parametrize("regularisation", [0.0, -1.0, float("nan"), float("inf")])
def test_a_prior_needs_a_regularisation(regularisation: float) -> None:
    with pytest.raises(BanditError, match="gives no prior: give a positive number"):
        Posterior.prior(2, 3, regularisation=regularisation)


# Properties, on streams that hypothesis makes up.

SIZE = 4
contexts = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(SIZE)), elements=st.floats(-100, 100, width=32))
lambdas = st.sampled_from([1e-2, 1.0, 30.0])
quick = partial(settings, max_examples=60, deadline=None, derandomize=True)


@quick()
@given(contexts, lambdas, st.randoms(use_true_random=False))
def test_the_order_of_updates_does_not_matter(z: np.ndarray, regularisation: float, random: Random) -> None:
    rewards = np.linspace(0.0, 1.0, len(z))
    order = list(range(len(z)))
    random.shuffle(order)
    one, other = (learned(z[o], rewards[o], regularisation=regularisation) for o in (slice(None), order))
    assert apart(covariance(one, 0), covariance(other, 0)) < 1e-9
    fitted = [z @ p.mean[0] for p in (one, other)]
    np.testing.assert_allclose(fitted[0], fitted[1], atol=1e-7)


@quick()
@given(contexts, lambdas, arrays(np.float64, SIZE, elements=st.floats(-10, 10)))
def test_an_observation_never_makes_less_certain(z: np.ndarray, regularisation: float, at: np.ndarray) -> None:
    posterior = Posterior.prior(1, SIZE, regularisation=regularisation)
    deviation = posterior.predict(at)[1][0]
    assert deviation == pytest.approx(np.sqrt(at @ at / regularisation))
    for context in z:
        posterior.update(0, context, 0.5)
        after = posterior.predict(at)[1][0]
        assert after <= deviation * (1 + 1e-9)
        deviation = after


@quick()
@given(contexts, lambdas)
def test_a_covariance_stays_positive_definite_and_below_the_prior(z: np.ndarray, regularisation: float) -> None:
    posterior = learned(z, np.ones(len(z)), regularisation=regularisation)
    assert is_factor(posterior.factor)
    values = np.linalg.eigvalsh(covariance(posterior, 0))
    largest = regularisation + np.square(z).sum()  # no eigenvalue of A is above its trace but for the other λ
    assert values.min() >= (1 - 1e-6) / largest
    assert values.max() <= (1 + 1e-9) / regularisation


@quick()
@given(contexts, lambdas)
def test_rewards_that_are_linear_shrink_towards_the_truth(z: np.ndarray, regularisation: float) -> None:
    """Without noise ŵ − w = −λ A⁻¹ w: the distance to the truth, in the norm of A, is below λ times the prior's."""
    truth = np.array([0.3, -0.2, 0.1, 0.5])
    posterior = learned(z, z @ truth, regularisation=regularisation)
    expected = truth - regularisation * np.linalg.solve(regularisation * np.eye(SIZE) + z.T @ z, truth)
    np.testing.assert_allclose(posterior.mean[0], expected, atol=1e-6)
    assert np.linalg.norm(posterior.mean[0] - truth) <= np.linalg.norm(truth) * (1 + 1e-6)
