"""The selector's answer for many steps in float32: several times cheaper, with a proven bound on the error.

Exhaustive search asks for millions of last steps and keeps ten. Here features are standardised once per pair instead
of once per step, and the networks are folded (`planning.folded`). Whoever keeps every step within the bound, and scores
those again by `Scorer`, finds what `Scorer` alone would find.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simmerge_core.planning.folded import PIECE, Folded
from simmerge_core.planning.propagation import cosine_columns
from simmerge_core.planning.rounding import Range, gamma
from simmerge_core.planning.scoring import Prefixes, Scorer
from simmerge_core.selector.mlp import Selector
from simmerge_core.selector.threads import one_blas_thread

_SLACK = 1e-11  # beyond float32's error: the exact scores are rounded to 12 digits


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Standardised features of one task's pairs, float32.

    Attributes
    ----------
    z
        (N², f), row i · N + j of the ordered pair (i, j); not clipped, so that mixtures are linear in it.
    low, high
        (f,) limits that a mixture is clipped to.
    range
        What the inputs of a step can be.
    """

    z: np.ndarray
    low: np.ndarray
    high: np.ndarray
    range: Range

    def mix(self, index: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
        """Fill the first rows of `out` with clipped mixtures of pairs (n, j) with weights (n, j) float32."""
        mixture = self.z.take(index[:, 0], axis=0)
        mixture *= weights[:, :1]
        for column in range(1, index.shape[1]):
            values = self.z.take(index[:, column], axis=0)
            values *= weights[:, column, None]
            mixture += values
        np.maximum(mixture, self.low, out=mixture)
        np.minimum(mixture, self.high, out=out[: len(index)])


class Estimator(Scorer):
    """A `Scorer` whose steps are computed in float32.

    Attributes
    ----------
    error
        How far a step's utility is from that of `Scorer` at most.
    """

    def __init__(self, scorer: Scorer, model: Selector, *, longest: int) -> None:
        """`longest`: checkpoints in an intermediate at most."""
        super().__init__(
            model,
            scorer.table,
            scorer.target,
            actions=scorer.actions,
            orientation=scorer.orientation,
            aggregate=scorer.aggregate,
        )
        self._pairs = [_standardised(model, scorer, t, longest=longest) for t in range(len(scorer.table.tasks))]
        choices = [self._columns] if self._turned is None else [self._columns, self._turned]
        self._folded = Folded(model, scorer.table.tasks, choices)
        self.error = _SLACK + max(self._folded.error(t, pairs.range) for t, pairs in enumerate(self._pairs))

    def _predict(
        self,
        t: int,
        prefixes: Prefixes,
        added: np.ndarray,
        left: np.ndarray,
        right: np.ndarray,
        *,
        turn: bool,
        ensemble: bool,
    ) -> np.ndarray:
        assert not ensemble, "single members are asked of a Scorer"
        count = len(self.table.checkpoints)
        index = (
            added[:, None] * count + prefixes.members if turn else prefixes.members * count + added[:, None]
        )  # (n, j)
        weights = prefixes.weights.astype(np.float32)
        out = np.empty((len(added), len(self.actions)), dtype=np.float32)
        with one_blas_thread():
            pieces = self._folded.pieces(t, int(turn))
            for start in range(0, len(added), PIECE):
                part = slice(start, start + PIECE)
                self._pairs[t].mix(index[part], weights[part], pieces.inputs)
                pieces.forward(out[part])
        return out.astype(np.float64)


def estimator_of(scorer: Scorer, *, k: int) -> Estimator | None:
    """An estimator of a scorer's steps in plans of k; None where the model or the propagation has none."""
    if type(scorer.model) is not Selector or scorer.propagation != "bounds":
        return None
    return Estimator(scorer, scorer.model, longest=k - 1)


def _standardised(model: Selector, scorer: Scorer, t: int, *, longest: int) -> _Pairs:
    mean, scale, clip = model.scaler.mean, model.scaler.scale, model.scaler.clip
    count = len(scorer.table.checkpoints)
    z = (scorer.table.x[t] - mean) / scale  # (N, N, f)
    # Cosines are clipped to ±1 before they are standardised, everything to ±clip after: one pair of limits does both.
    low, high = np.full(len(mean), -clip), np.full(len(mean), clip)
    cosines = cosine_columns(scorer.table.feature_names)
    low[cosines] = np.clip((-1.0 - mean[cosines]) / scale[cosines], -clip, clip)
    high[cosines] = np.clip((1.0 - mean[cosines]) / scale[cosines], -clip, clip)
    there = z[~np.eye(count, dtype=bool)]
    least, most = there.min(axis=0), there.max(axis=0)
    # A mixture lies between the least and the most of its pairs. Its error is that of a sum of products, and clipping
    # adds the rounding of the limits.
    largest = np.maximum.reduce([np.abs(least), np.abs(most), np.abs(low), np.abs(high)])
    inputs = Range(np.clip(least, low, high), np.clip(most, low, high), gamma(longest + 5) * largest)
    single = z.reshape(count * count, -1).astype(np.float32)
    return _Pairs(single, low.astype(np.float32), high.astype(np.float32), inputs)
