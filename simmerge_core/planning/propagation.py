"""Features of a step whose first side is an intermediate merge that was never made (App. D).

An intermediate of a sequential plan is a mixture of its checkpoints with known weights: merging (a, b) at alpha gives
a the weight 1 − α and b the weight α, and merging that with c scales both by 1 − α'. App. D's rules are all convex
combinations of the pairwise values with these weights, so that a chain of merges needs no recursion:

- KL (D.1) and L2 distances (D.2): the upper bounds Σ wᵢ·value(i, c), in each orientation by its own values;
- cosines (D.3): the same sum, clipped to [−1, 1];
- everything else (norms, their log ratios, fractions, self signals) follows the same sum. For a norm this is the upper
  bound by the triangle inequality, for a log norm the weighted geometric mean. These columns are not in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simmerge_core.features.columns import FEATURES

_UNITS = {column.name: column.unit for column in FEATURES}


def cosine_columns(feature_names: Sequence[str]) -> np.ndarray:
    """Positions of the columns that are cosines."""
    return np.array([i for i, name in enumerate(feature_names) if _UNITS.get(name) == "cosine"], dtype=np.int64)


def mixture_weights(weights: np.ndarray, alpha: np.ndarray | float) -> np.ndarray:
    """Weights of the checkpoints after one more merge.

    Parameters
    ----------
    weights
        (n, j), rows sum to 1.
    alpha
        (n,) or a number: weight of the checkpoint that is added (App. A).

    Returns
    -------
    (n, j + 1) weights, rows sum to 1.
    """
    last = np.broadcast_to(np.asarray(alpha, dtype=np.float64), (len(weights),))[:, None]
    return np.concatenate([weights * (1.0 - last), last], axis=1)


def propagate(
    x: np.ndarray,
    members: np.ndarray,
    weights: np.ndarray,
    added: np.ndarray,
    *,
    feature_names: Sequence[str],
    intermediate_first: bool = True,
) -> np.ndarray:
    """Features of (intermediate, c), or of (c, intermediate), for n steps at once.

    Parameters
    ----------
    x
        (N, N, f) pairwise features; x[i, j] of the ordered pair (i, j).
    members
        (n, j) indices of the checkpoints in each intermediate.
    weights
        (n, j) their weights, rows sum to 1.
    added
        (n,) index of the checkpoint c that is merged next; not among the members.
    intermediate_first
        Orientation: (intermediate, c) reads the pairs (i, c), (c, intermediate) the pairs (c, i).

    Returns
    -------
    (n, f) float64.
    """
    out = np.zeros((len(members), x.shape[2]))
    for column in range(members.shape[1]):  # few checkpoints, many plans
        i = members[:, column]
        values = x[i, added] if intermediate_first else x[added, i]  # (n, f)
        values *= weights[:, column, None]
        out += values
    cosines = cosine_columns(feature_names)
    out[:, cosines] = np.clip(out[:, cosines], -1.0, 1.0)
    return out
