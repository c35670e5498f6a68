"""Probabilities of being the highest draw, against quadrature, closed forms, and the frequencies of real choices."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import chisquare

from simmerge_core.bandit import LinearBandit, LinTS, UniformBandit, probability_of_best

Moments = list[tuple[float, float]]

STATED = 1e-8  # what the function promises


def by_quadrature(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """∫ fₐ Π F_b by adaptive quadrature between many marks, one arm after another."""
    marks = np.unique((mean[:, None] + deviation[:, None] * np.array([-10, -6, -4, -2, -1, 0, 1, 2, 4, 6, 10])).ravel())
    out = []
    for arm in range(len(mean)):
        others = np.arange(len(mean)) != arm

        def density(v: float, arm: int = arm, others: np.ndarray = others) -> float:
            u = (v - mean) / deviation
            return float(np.exp(-0.5 * u[arm] ** 2) * np.prod(ndtr(u[others]))) / (np.sqrt(2 * np.pi) * deviation[arm])

        low, high = mean[arm] - 10 * deviation[arm], mean[arm] + 10 * deviation[arm]
        ends = [low, *marks[(marks > low) & (marks < high)], high]
        out.append(sum(quad(density, a, b, epsabs=1e-13, epsrel=1e-10)[0] for a, b in pairwise(ends)))
    return np.array(out)


@pytest.mark.parametrize("arms", [2, 3, 6, 10])
@pytest.mark.parametrize("ratio", [1.0, 10.0, 1e3])
def test_probabilities_equal_adaptive_quadrature(arms: int, ratio: float) -> None:
    rng = np.random.default_rng(arms)
    mean, deviation = rng.normal(size=arms), np.exp(rng.uniform(-np.log(ratio), 0.0, arms))
    expected = by_quadrature(mean, deviation)
    assert expected.sum() == pytest.approx(1.0, abs=1e-10)
    np.testing.assert_allclose(probability_of_best(mean, deviation), expected, rtol=0, atol=STATED)


@given(
    st.floats(-5, 5),
    st.floats(-5, 5),
    st.floats(1e-3, 10),
    st.floats(1e-3, 10),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_two_arms_have_a_closed_form(m1: float, m2: float, s1: float, s2: float) -> None:
    first = ndtr((m1 - m2) / np.hypot(s1, s2))
    found = probability_of_best(np.array([m1, m2]), np.array([s1, s2]))
    np.testing.assert_allclose(found, [first, 1 - first], rtol=0, atol=STATED)


@pytest.mark.parametrize("ratio", [1e-3, 1e-6, 1e-9, 1e-11, 1e-12, 1e-13, 1e-15, 1e-18, 1e-40, 1e-120])
@pytest.mark.parametrize(("wide", "narrow"), [(0.0, -1.0), (-1.0, 0.0), (100.0, 99.0), (0.3, 0.3), (1e6, 1e6 + 2)])
def test_a_deviation_may_be_any_part_of_another(wide: float, narrow: float, ratio: float) -> None:
    first = ndtr((wide - narrow) / np.hypot(1.0, ratio))
    found = probability_of_best(np.array([wide, narrow]), np.array([1.0, ratio]))
    np.testing.assert_allclose(found, [first, 1 - first], rtol=0, atol=STATED)


@pytest.mark.parametrize("deviation", [1e-3, 1e-9, 1e-15, 1e-17, 1e-30, 1e-300])
def test_draws_narrower_than_the_rounding_of_means_are_numbers_still(deviation: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apart = probability_of_best(np.array([0.6, 0.5, 0.6]), np.full(3, deviation))
    np.testing.assert_allclose(apart, [0.5, 0.0, 0.5], rtol=0, atol=STATED)


@pytest.mark.parametrize("arms", [1, 2, 3, 10, 40])
def test_arms_that_are_alike_share_alike(arms: int) -> None:
    found = probability_of_best(np.full(arms, 0.4), np.full(arms, 0.1))
    np.testing.assert_allclose(found, 1 / arms, rtol=1e-12)
    np.testing.assert_allclose(probability_of_best(np.full(arms, 0.4), np.zeros(arms)), 1 / arms, rtol=1e-15)


def test_points_are_won_by_the_highest_and_ties_share() -> None:
    np.testing.assert_array_equal(probability_of_best(np.array([0.1, 0.3, 0.2]), np.zeros(3)), [0, 1, 0])
    np.testing.assert_array_equal(probability_of_best(np.array([0.3, 0.1, 0.3]), np.zeros(3)), [0.5, 0, 0.5])
    np.testing.assert_array_equal(probability_of_best(np.array([-2.0]), np.zeros(1)), [1])


def test_points_among_draws() -> None:
    """A point wins where every draw lies below it; points below it never do."""
    mean, deviation = np.array([0.5, 0.2, 0.5, 0.4, 0.6]), np.array([0.0, 0.0, 0.0, 0.3, 0.1])
    found = probability_of_best(mean, deviation)
    below = ndtr((0.5 - 0.4) / 0.3) * ndtr((0.5 - 0.6) / 0.1)
    np.testing.assert_allclose(found[[0, 1, 2]], [below / 2, 0.0, below / 2], rtol=0, atol=STATED)

    def density(v: float) -> float:
        return float(np.exp(-0.5 * ((v - 0.4) / 0.3) ** 2) / (np.sqrt(2 * np.pi) * 0.3) * ndtr((v - 0.6) / 0.1))

    drawn = sum(quad(density, a, b, epsabs=1e-13)[0] for a, b in ((0.5, 0.6), (0.6, 1.0), (1.0, 4.0)))
    assert found[3] == pytest.approx(drawn, abs=STATED)
    assert found.sum() == pytest.approx(1.0, abs=1e-15)


def test_a_draw_far_below_a_point_never_wins() -> None:
    np.testing.assert_array_equal(probability_of_best(np.array([1.0, 0.0]), np.array([0.0, 0.01])), [1, 0])
    np.testing.assert_allclose(probability_of_best(np.array([0.0, 1.0]), np.array([0.0, 0.01])), [0, 1], atol=1e-15)


ordinary = st.lists(st.tuples(st.floats(-3, 3), st.floats(1e-3, 3)), min_size=1, max_size=8)


@given(ordinary, st.floats(-100, 100), st.sampled_from([1e-6, 0.1, 7.0, 1e6]))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_shift_scale_and_order_change_nothing(arms: Moments, shift: float, scale: float) -> None:
    mean, deviation = np.array(arms).T
    found = probability_of_best(mean, deviation)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    assert (found >= 0).all()
    np.testing.assert_allclose(probability_of_best(scale * (mean + shift), scale * deviation), found, atol=2 * STATED)
    order = np.random.default_rng(len(arms)).permutation(len(arms))
    np.testing.assert_allclose(probability_of_best(mean[order], deviation[order]), found[order], atol=1e-12)


@given(ordinary, st.floats(0.01, 2))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_higher_mean_wins_more_often(arms: Moments, more: float) -> None:
    mean, deviation = np.array(arms).T
    before = probability_of_best(mean, deviation)
    raised = mean.copy()
    raised[0] += more
    after = probability_of_best(raised, deviation)
    assert after[0] >= before[0] - STATED
    assert (after[1:] <= before[1:] + STATED).all()


def test_inputs_are_left_alone() -> None:
    mean, deviation = np.array([1.0, 2.0, 2.5]), np.array([0.5, 1e-14, 0.0])
    kept = mean.copy(), deviation.copy()
    probability_of_best(mean, deviation)
    np.testing.assert_array_equal((mean, deviation), kept)


# Frequencies of choices. Round ids are fixed, so that the statistics are numbers, not chances.

ARMS = ("linear", "slerp", "ties", "dare")


def experienced(*, mixing: float = 0.0, kind: type[LinearBandit] = LinTS) -> LinearBandit:
    """A bandit that has seen some rewards, more of some arms than of others."""
    rng = np.random.default_rng(0)
    bandit = kind(ARMS, 3, exploration=0.5, mixing=mixing, seed=7)
    for n in range(60):
        bandit.update(rng.normal(size=3), ARMS[min(n % 7, 3)], float(rng.uniform(0.3, 0.7)))
    return bandit


@pytest.mark.parametrize(
    ("mixing", "retired"), [(0.0, None), (0.3, None), (0.0, "slerp"), (0.3, "ties"), (1.0, "dare")]
)
def test_choices_are_as_frequent_as_their_propensities(mixing: float, retired: str | None) -> None:
    bandit = experienced(mixing=mixing)
    if retired:
        bandit.retire_arm(retired)
    at = np.array([0.6, -0.4, 0.9])
    probabilities = bandit.probabilities(at)
    choices = [bandit.select(at, round_id=f"round-{n}") for n in range(3000)]
    for choice in choices[:50]:
        np.testing.assert_array_equal(choice.probabilities, probabilities)
        assert choice.propensity == probabilities[ARMS.index(choice.arm)]
    counts = np.array([sum(choice.arm == arm for choice in choices) for arm in ARMS])
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    assert chisquare(counts[possible], 3000 * probabilities[possible]).pvalue > 1e-3
    # The test would see propensities that are off by a quarter of one another.
    off = probabilities[possible] * (1 + 0.25 * np.arange(possible.sum()))
    assert mixing == 1.0 or chisquare(counts[possible], 3000 * off / off.sum()).pvalue < 1e-3


@pytest.mark.parametrize("mixing", [0.0, 0.25])
def test_choices_at_changing_contexts_of_a_learning_bandit(mixing: float) -> None:
    """Σ (1[chosen] − p) over rounds, in units of its deviation √Σ p (1 − p), is about standard normal."""
    rng = np.random.default_rng(1)
    bandit = LinTS(ARMS, 3, exploration=0.4, mixing=mixing, seed=3)
    surplus, variance = np.zeros(4), np.zeros(4)
    inverse = np.zeros(3000)
    for n in range(3000):
        z = rng.normal(size=3)
        choice = bandit.select(z, round_id=str(n))
        surplus += (np.array(ARMS) == choice.arm) - choice.probabilities
        variance += choice.probabilities * (1 - choice.probabilities)
        inverse[n] = 1 / choice.propensity
        if n % 5 == 0:
            bandit.update(z, choice.arm, float(np.clip(0.5 + 0.1 * z[ARMS.index(choice.arm) % 3], 0, 1)))
    assert np.abs(surplus / np.sqrt(variance)).max() < 3.5
    # What off-policy estimates rest on: E[1/p of the chosen arm] is the number of arms. Only where no arm is too rare.
    assert not mixing or inverse.mean() == pytest.approx(4, abs=4 * inverse.std() / 3000**0.5)


def test_a_mixed_probability_is_the_mixture() -> None:
    at = np.array([0.6, -0.4, 0.9])
    pure, mixed = experienced().probabilities(at), experienced(mixing=0.2).probabilities(at)
    np.testing.assert_allclose(mixed, 0.8 * pure + 0.2 / 4, rtol=1e-12)
    bandit = experienced(mixing=0.2)
    bandit.retire_arm("linear")
    left = bandit.probabilities(at)
    mean, deviation = bandit.predict(at)
    np.testing.assert_allclose(left[1:], 0.8 * probability_of_best(mean[1:], 0.5 * deviation[1:]) + 0.2 / 3, rtol=1e-12)
    assert left[0] == 0.0


def test_without_exploration_equal_arms_are_chosen_alike() -> None:
    bandit = LinTS(ARMS, 3, exploration=0.0)
    at = np.ones(3)
    np.testing.assert_allclose(bandit.probabilities(at), 0.25)
    counts = [sum(bandit.select(at, round_id=str(n)).arm == arm for n in range(1000)) for arm in ARMS]
    assert chisquare(counts).pvalue > 1e-3
    bandit.update(at, "ties", 0.9)
    np.testing.assert_array_equal(bandit.probabilities(at), [0, 0, 1, 0])


def test_uniform_choices_are_uniform() -> None:
    bandit = experienced(kind=UniformBandit)
    bandit.retire_arm("slerp")
    at = np.ones(3)
    np.testing.assert_allclose(bandit.probabilities(at), [1 / 3, 0, 1 / 3, 1 / 3])
    counts = [sum(bandit.select(at, round_id=str(n)).arm == arm for n in range(1000)) for arm in ARMS]
    assert counts[1] == 0
    assert chisquare([counts[0], *counts[2:]]).pvalue > 1e-3
