"""Exact weight features of a linear intermediate, from the Gram matrix that the pairwise features imply.

Cosines and norms of all pairs are the Gram matrix of the checkpoints' weights (in units of the base's norm), and the
weights of a linear merge are Σ wᵢ θᵢ with Σ wᵢ = 1. So its norm, and its inner product with any checkpoint, are known
without making it: ‖Σ wᵢ θᵢ‖² = Σ wᵢ wⱼ ⟨θᵢ, θⱼ⟩. The same holds for task vectors and within each kind of module. Other
operators are treated as linear ones at their alpha, as in App. D. Summaries over layers keep App. D's rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simmerge_core.features.columns import MODULES

_LEAST = 1e-30  # squared norms below this are rounding


@dataclass(frozen=True, slots=True)
class _Space:
    """The columns that describe one inner-product space: all weights, one kind of module, or the task vectors."""

    cosine: str
    norm_a: str
    norm_b: str
    log_norms: bool
    ratio: str
    distance: str | None


def _spaces() -> list[_Space]:
    prefixes = [("weight_", "weight_"), *((f"{m}_weight_", f"{m}_") for m in MODULES)]
    spaces = [
        _Space(
            f"{w}cosine", f"{n}log_norm_a_base", f"{n}log_norm_b_base", True, f"{w}log_norm_ratio", f"{w}l2_relative"
        )
        for w, n in prefixes
    ]
    vectors = ("task_vector_cosine", "task_vector_relative_norm_a", "task_vector_relative_norm_b")
    return [*spaces, _Space(*vectors, False, "task_vector_log_norm_ratio", None)]


def exact_weights(
    out: np.ndarray,
    x: np.ndarray,
    members: np.ndarray,
    weights: np.ndarray,
    added: np.ndarray,
    *,
    feature_names: Sequence[str],
    intermediate_first: bool,
) -> np.ndarray:
    """Replace, in propagated features, the columns that the Gram matrix gives exactly.

    Parameters
    ----------
    out
        (n, f) features from App. D's rules; changed in place.
    x, members, weights, added, feature_names, intermediate_first
        As in `propagation.propagate`.

    Returns
    -------
    `out`; spaces whose cosine or norm columns are not among the features keep App. D's values.
    """
    at = {name: i for i, name in enumerate(feature_names)}
    for space in _spaces():
        if all(name in at for name in (space.cosine, space.norm_a, space.norm_b)):
            _fill(out, x, members, weights, added, space, at, intermediate_first)
    return out


def _fill(
    out: np.ndarray,
    x: np.ndarray,
    members: np.ndarray,
    weights: np.ndarray,
    added: np.ndarray,
    space: _Space,
    at: dict[str, int],
    intermediate_first: bool,
) -> None:
    count = len(x)
    cosine = x[:, :, at[space.cosine]].copy()
    cosine[np.arange(count), np.arange(count)] = 1.0
    norm = x[np.arange(count), (np.arange(count) + 1) % count, at[space.norm_a]]  # as first side of any of its pairs
    norm = np.exp(norm) if space.log_norms else norm
    gram = cosine * norm[:, None] * norm[None, :]  # (N, N)
    square = np.einsum("ni,nj,nij->n", weights, weights, gram[members[:, :, None], members[:, None, :]])
    cross = np.einsum("ni,ni->n", weights, gram[members, added[:, None]])
    mine, other = np.sqrt(np.maximum(square, _LEAST)), np.maximum(norm[added], np.sqrt(_LEAST))
    left, right = (mine, other) if intermediate_first else (other, mine)
    out[:, at[space.cosine]] = np.clip(cross / (mine * other), -1.0, 1.0)
    out[:, at[space.norm_a]] = np.log(left) if space.log_norms else left
    out[:, at[space.norm_b]] = np.log(right) if space.log_norms else right
    if space.ratio in at:
        out[:, at[space.ratio]] = np.log(left / right)
    if space.distance is not None and space.distance in at:
        between = np.sqrt(np.maximum(square + other**2 - 2.0 * cross, 0.0))
        out[:, at[space.distance]] = between / np.sqrt(mine * other)
