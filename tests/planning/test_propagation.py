"""App. D against its formulas written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simmerge_core.planning import mixture_weights, propagate
from simmerge_core.planning.propagation import cosine_columns

NAMES = (
    "kl_ab_mean",
    "kl_ba_mean",
    "weight_l2",
    "weight_cosine",
    "attention_cosine_mean",
    "weight_norm_a",
    "weight_norm_b",
)


def _table(rng: np.random.Generator, n: int = 5) -> np.ndarray:
    """Pairwise features of n real distributions and vectors, so that every bound of App. D can be checked."""
    p = rng.dirichlet(np.ones(6), size=n)
    theta = rng.normal(size=(n, 8))
    x = np.zeros((n, n, len(NAMES)))
    for i in range(n):
        for j in range(n):
            x[i, j] = _pair(p[i], p[j], theta[i], theta[j])
    return x


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.sum(p * np.log(p / q)))


def _cos(u: np.ndarray, v: np.ndarray) -> float:
    return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))


def _pair(pa: np.ndarray, pb: np.ndarray, ta: np.ndarray, tb: np.ndarray) -> list[float]:
    norm = np.linalg.norm
    return [_kl(pa, pb), _kl(pb, pa), norm(ta - tb), _cos(ta, tb), _cos(ta, tb), norm(ta), norm(tb)]


@pytest.mark.parametrize("alpha", [0.5, 0.3])
def test_formulas_of_one_intermediate(alpha: float) -> None:
    x = _table(np.random.default_rng(0))
    a, b, c = 1, 4, 2
    members, weights = np.array([[a, b]]), mixture_weights(np.ones((1, 1)), alpha)
    left = propagate(x, members, weights, np.array([c]), feature_names=NAMES)[0]
    right = propagate(x, members, weights, np.array([c]), feature_names=NAMES, intermediate_first=False)[0]
    for column in range(len(NAMES)):
        # (1): KL((1-α)Pa + αPb || Pc) ≤ (1-α) KL(Pa || Pc) + α KL(Pb || Pc); (3) and (5) have the same form
        assert left[column] == pytest.approx((1 - alpha) * x[a, c, column] + alpha * x[b, c, column])
        # (2), (4): the intermediate on the right
        assert right[column] == pytest.approx((1 - alpha) * x[c, a, column] + alpha * x[c, b, column])
    assert left[0] != pytest.approx(right[0])
    assert left[0] == pytest.approx(right[1])


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_kl_and_distance_are_upper_bounds_of_the_mixture(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    p, theta = rng.dirichlet(np.ones(6), size=3) + 1e-9, rng.normal(size=(3, 8))
    x = np.array([[_pair(p[i], p[j], theta[i], theta[j]) for j in range(3)] for i in range(3)])
    found = propagate(x, np.array([[0, 1]]), np.array([[1 - alpha, alpha]]), np.array([2]), feature_names=NAMES)[0]
    mixed_p, mixed_t = (1 - alpha) * p[0] + alpha * p[1], (1 - alpha) * theta[0] + alpha * theta[1]
    true = _pair(mixed_p, p[2], mixed_t, theta[2])
    for column in (0, 1, 2, 5, 6):
        assert found[column] >= true[column] - 1e-9


@given(st.integers(0, 10_000), st.lists(st.floats(0.05, 0.95), min_size=2, max_size=3))
def test_a_chain_equals_the_recursion(seed: int, alphas: list[float]) -> None:
    rng = np.random.default_rng(seed)
    x = _table(rng, 6)
    order = rng.permutation(6)[: len(alphas) + 1]
    weights = np.ones((1, 1))
    by_hand = x[order[0]]  # (N, f): features of (intermediate, c) for every c
    for alpha, added in zip(alphas, order[1:], strict=True):
        weights = mixture_weights(weights, alpha)
        by_hand = (1 - alpha) * by_hand + alpha * x[added]
    assert weights.sum() == pytest.approx(1.0)
    c = int(np.setdiff1d(np.arange(6), order)[0])
    found = propagate(x, order[None], weights, np.array([c]), feature_names=NAMES)
    np.testing.assert_allclose(found[0], by_hand[c])


def test_cosines_are_clipped_and_nothing_else() -> None:
    x = np.full((3, 3, len(NAMES)), 1.0 + 1e-6)
    found = propagate(x, np.array([[0, 1]]), np.array([[0.5, 0.5]]), np.array([2]), feature_names=NAMES)[0]
    assert list(cosine_columns(NAMES)) == [3, 4]
    np.testing.assert_array_equal(found[[3, 4]], 1.0)
    np.testing.assert_allclose(np.delete(found, [3, 4]), 1.0 + 1e-6)


def test_many_steps_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(5)
    x = _table(rng, 7)
    members = np.array([rng.permutation(6)[:3] for _ in range(20)])
    weights = rng.dirichlet(np.ones(3), size=20)
    added = np.full(20, 6)
    whole = propagate(x, members, weights, added, feature_names=NAMES)
    for i in range(20):
        one = propagate(x, members[i : i + 1], weights[i : i + 1], added[i : i + 1], feature_names=NAMES)
        np.testing.assert_array_equal(one[0], whole[i])
