"""Agreement with an independent implementation of the same bandits: MABWiser (Strong, Kleynhans & Kadıoğlu, 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mabwiser.mab import MAB, LearningPolicy
from mabwiser.utils import create_rng
from scipy.stats import chisquare

from simmerge_core.bandit import LinearBandit, LinTS, LinUCB

D = 8
ARMS = ["linear", "slerp@0.3", "slerp@0.7", "ties", "dare"]


def stream(rounds: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Contexts, and every arm's reward at each: linear, with noise."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rounds, D)) / D**0.5
    return z, 0.5 + z @ (0.2 * rng.normal(size=(D, len(ARMS)))) + 0.1 * rng.normal(size=(rounds, len(ARMS)))


def begun(ours: LinearBandit, policy: Any, z: np.ndarray, rewards: np.ndarray) -> MAB:
    """Both after one reward of each arm.

    MABWiser takes λI for the inverse of an arm that has no reward yet, where it is I/λ.
    """
    theirs = MAB(list(ARMS), policy, seed=1)
    theirs.fit(np.array(ARMS), np.diagonal(rewards[: len(ARMS)]), z[: len(ARMS)])
    for n, arm in enumerate(ARMS):
        ours.update(z[n], arm, float(rewards[n, n]))
    return theirs


def same_models(ours: LinearBandit, theirs: MAB, *, within: float) -> None:
    for n, arm in enumerate(ARMS):
        model = theirs._imp.arm_to_model[arm]
        factor = ours.posterior.factor[n]
        np.testing.assert_allclose(ours.posterior.mean[n], model.beta, rtol=0, atol=within)
        np.testing.assert_allclose(factor.T @ factor, model.A_inv, rtol=0, atol=within)
        np.testing.assert_allclose(ours.posterior.precision[n], model.A, rtol=1e-12)


@pytest.mark.parametrize(("exploration", "regularisation"), [(0.5, 1.0), (0.15, 0.2), (2.0, 10.0)])
def test_linucb_makes_the_same_choice_in_every_round(exploration: float, regularisation: float) -> None:
    rounds = 1000
    z, rewards = stream(rounds, seed=3)
    ours = LinUCB(ARMS, D, exploration=exploration, regularisation=regularisation, reward_range=(-9, 9))
    theirs = begun(ours, LearningPolicy.LinUCB(alpha=exploration, l2_lambda=regularisation), z, rewards)
    chosen = []
    for n in range(len(ARMS), rounds):
        mean, deviation = ours.predict(z[n])
        bound = mean + exploration * deviation
        expected = theirs.predict_expectations(z[n : n + 1])
        np.testing.assert_allclose(bound, [expected[arm] for arm in ARMS], rtol=0, atol=1e-11)
        arm = ours.select(z[n]).arm
        other = max(expected, key=lambda name: expected[name])
        # Where two bounds are one number but for rounding, either is right.
        assert arm == other or abs(bound[ARMS.index(arm)] - bound[ARMS.index(other)]) < 1e-11
        chosen.append(arm)
        reward = float(rewards[n, ARMS.index(arm)])
        ours.update(z[n], arm, reward)
        theirs.partial_fit(np.array([arm]), np.array([reward]), z[n : n + 1])
    assert len(set(chosen)) > 2
    same_models(ours, theirs, within=1e-11)


def test_exact_ties_go_to_the_first_arm_in_both() -> None:
    z = stream(40, seed=4)[0]
    ours = LinUCB(ARMS, D, exploration=0.4)
    theirs = MAB(list(ARMS), LearningPolicy.LinUCB(alpha=0.4, l2_lambda=1.0), seed=1)
    for n in range(20):  # the same reward at the same context for every arm
        for arm in ARMS:
            ours.update(z[n], arm, 0.25)
        contexts = np.repeat(z[n : n + 1], len(ARMS), axis=0)
        (theirs.fit if n == 0 else theirs.partial_fit)(np.array(ARMS), np.full(len(ARMS), 0.25), contexts)
    for n in range(20, 40):
        assert ours.select(z[n]).arm == theirs.predict(z[n : n + 1]) == ARMS[0]


@pytest.mark.parametrize(("exploration", "regularisation"), [(1.0, 1.0), (0.7, 0.2)])
def test_lints_has_the_same_posterior_and_the_same_distribution_of_choices(
    exploration: float, regularisation: float
) -> None:
    """MABWiser draws weights w̃ ~ N(ŵ, α² A⁻¹) and takes w̃ᵀz; the propensities here are of a number per arm."""
    draws = 30_000
    z, rewards = stream(400, seed=5)
    ours = LinTS(ARMS, D, exploration=exploration, regularisation=regularisation, reward_range=(-9, 9), seed=2)
    theirs = begun(ours, LearningPolicy.LinTS(alpha=exploration, l2_lambda=regularisation), z, rewards)
    for n in range(len(ARMS), 300):
        arm = ours.select(z[n], round_id=str(n)).arm
        reward = float(rewards[n, ARMS.index(arm)])
        ours.update(z[n], arm, reward)
        theirs.partial_fit(np.array([arm]), np.array([reward]), z[n : n + 1])
    same_models(ours, theirs, within=1e-11)
    for n, arm in enumerate(ARMS):
        # MABWiser copies the generator into every arm's model, so that arms share their draws; Thompson's do not.
        theirs._imp.arm_to_model[arm].rng = create_rng(n)
    # The chi-square distribution holds for counts, not for single cases: contexts at which no arm is rare.
    open_contexts = [at for at in z[300:] if draws * ours.probabilities(at).min() > 20]
    for at in open_contexts[:6]:
        found = np.array(theirs.predict(np.repeat(at[None], draws, axis=0)))
        counts = [(found == arm).sum() for arm in ARMS]
        probabilities = ours.probabilities(at)
        assert chisquare(counts, draws * probabilities).pvalue > 1e-3
        assert chisquare(counts, draws * np.roll(probabilities, 1)).pvalue < 1e-9  # it sees a difference
    assert len(open_contexts) >= 6
