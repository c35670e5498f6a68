"""Weight features of intermediates from the Gram matrix, against merges that are really made."""

from __future__ import annotations

import numpy as np
import pytest
from selector_world import World

from simmerge_core.errors import SelectionError
from simmerge_core.planning import propagate, search
from simmerge_core.planning.gram import exact_weights
from simmerge_core.selector import Selector

NAMES = (
    "kl_ab_mean",
    "weight_cosine",
    "weight_l2_relative",
    "weight_log_norm_ratio",
    "weight_log_norm_a_base",
    "weight_log_norm_b_base",
    "task_vector_cosine",
    "task_vector_log_norm_ratio",
    "task_vector_relative_norm_a",
    "task_vector_relative_norm_b",
)


def _features(a: np.ndarray, b: np.ndarray, base: np.ndarray) -> list[float]:
    """The declared columns, from weights."""
    norm = np.linalg.norm
    da, db, scale = a - base, b - base, norm(base)
    return [
        1.0,
        a @ b / norm(a) / norm(b),
        norm(a - b) / np.sqrt(norm(a) * norm(b)),
        np.log(norm(a) / norm(b)),
        np.log(norm(a) / scale),
        np.log(norm(b) / scale),
        da @ db / norm(da) / norm(db),
        np.log(norm(da) / norm(db)),
        norm(da) / scale,
        norm(db) / scale,
    ]


@pytest.mark.parametrize("intermediate_first", [True, False])
def test_equals_the_features_of_the_merge_itself(intermediate_first: bool) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=30)
    theta = base + 0.4 * rng.normal(size=(5, 30))
    x = np.array([[_features(a, b, base) for b in theta] for a in theta])
    x[np.arange(5), np.arange(5)] = np.nan  # a pair table has no diagonal
    members, weights = np.array([[0, 3, 1], [4, 1, 0]]), np.array([[0.2, 0.3, 0.5], [0.25, 0.25, 0.5]])
    added = np.array([2, 2])
    options = {"feature_names": NAMES, "intermediate_first": intermediate_first}
    bounds = propagate(x, members, weights, added, **options)  # type: ignore[arg-type]
    found = exact_weights(bounds.copy(), x, members, weights, added, **options)  # type: ignore[arg-type]
    for row in range(2):
        merged = weights[row] @ theta[members[row]]
        sides = (merged, theta[2]) if intermediate_first else (theta[2], merged)
        np.testing.assert_allclose(found[row], _features(*sides, base), atol=1e-10)
    # App. D's distance stays an upper bound of the true one, but it is not the true one.
    assert (bounds[:, 2] > found[:, 2] + 1e-3).all()


def test_search_offers_both(plan_world: World, plan_selector: Selector) -> None:
    ids = sorted(plan_world.domains)
    exact = search(plan_selector, plan_world.features, ids, "math", k=3, top=3, propagation="gram")
    assert exact.height == 3
    pairs = [search(plan_selector, plan_world.features, ids, "math", k=2, propagation=p) for p in ("gram", "bounds")]
    assert pairs[0].equals(pairs[1])
    with pytest.raises(SelectionError, match="Propagation"):
        search(plan_selector, plan_world.features, ids, "math", k=2, propagation="guess")
