"""Bayesian linear regression per arm, E[r | z] = wₐᵀz, updated in O(d²) per reward (§2.4).

The prior of an arm is N(m, σ²/λ · I) and rewards have the noise σ, so that after rewards r at contexts z the
posterior is N(ŵ, σ² A⁻¹) with A = λI + Σ z zᵀ and ŵ = A⁻¹ (λm + Σ r z); σ is part of the exploration scale.
What is kept is the inverse W = L⁻¹ of the Cholesky factor of A. A rank-one update A + z zᵀ = L (I + p pᵀ) Lᵀ with
p = W z multiplies W by the inverse of the Cholesky factor of I + p pᵀ, whose entries are known in closed form
(Gill, Golub, Murray & Saunders, "Methods for Modifying Matrix Factorizations", 1974): with tᵢ = 1 + p₁² + … + pᵢ²,

    row i of W  becomes  √(tᵢ₋₁ / tᵢ) · Wᵢ  −  pᵢ / √(tᵢ tᵢ₋₁) · Σ_{j<i} pⱼ Wⱼ .

A⁻¹ = WᵀW stays positive definite whatever happens, and rounding is swept out by a factorisation of A now and then,
where A is so well-conditioned that forming it has lost less than the updates have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simmerge_core.errors import BanditError
from simmerge_core.selector.threads import one_blas_thread

REFACTOR_EVERY = 256
"""Updates of one arm after which its factor is computed from the accumulated precision."""

WELL_CONDITIONED = 1e6
"""Bound on a condition number up to which a factorisation loses fewer digits than many updates do."""


@dataclass
class Posterior:
    """K arms over d coordinates; every array is float64 and so is every sum.

    Attributes
    ----------
    precision
        (K, d, d), A of each arm.
    moment
        (K, d), λm + Σ r z of each arm.
    factor
        (K, d, d), lower triangular, inverse Cholesky factor W of each precision.
    mean
        (K, d), ŵ of each arm.
    updates
        (K,) int64, rewards that each arm has taken one at a time.
    """

    precision: np.ndarray
    moment: np.ndarray
    factor: np.ndarray
    mean: np.ndarray
    updates: np.ndarray

    @classmethod
    def prior(cls, arms: int, dimension: int, *, regularisation: float, mean: np.ndarray | None = None) -> Posterior:
        """Arms that know nothing.

        Parameters
        ----------
        regularisation
            λ > 0.
        mean
            (K, d) prior means; zero if None.
        """
        if not (np.isfinite(regularisation) and regularisation > 0):
            raise BanditError(f"The regularisation {regularisation:g} gives no prior: give a positive number.")
        identity = np.broadcast_to(np.eye(dimension), (arms, dimension, dimension))
        centre = np.zeros((arms, dimension)) if mean is None else np.array(mean, dtype=np.float64)
        return cls(
            regularisation * identity,
            regularisation * centre,
            regularisation**-0.5 * identity,
            centre,
            np.zeros(arms, dtype=np.int64),
        )

    @property
    def arms(self) -> int:
        """Number of arms."""
        return len(self.mean)

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return self.mean.shape[1]

    def copy(self) -> Posterior:
        """Arrays of its own."""
        return Posterior(*(a.copy() for a in (self.precision, self.moment, self.factor, self.mean, self.updates)))

    def observe(self, z: np.ndarray, rewards: np.ndarray, *, weight: float = 1.0) -> None:
        """Take many rewards at once, by one factorisation: full-information labels before any round (§2.4).

        Parameters
        ----------
        z
            (n, d) contexts, the same for every arm.
        rewards
            (n, K); NaN where an arm was not observed.
        weight
            What one label counts, against 1 for a reward of a round.
        """
        with one_blas_thread():  # a sum that is split among threads has other last digits
            for arm in range(self.arms):
                seen = np.isfinite(rewards[:, arm])
                known, r = z[seen].astype(np.float64), rewards[seen, arm].astype(np.float64)
                self.precision[arm] += weight * (known.T @ known)
                self.moment[arm] += weight * (known.T @ r)
                if not self._refactor(arm):
                    for row in np.sqrt(weight) * known:
                        self._rotate(arm, row)
                self._solve(arm)

    def predict(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K,) mean and (K,) standard deviation, in units of σ, of each arm's expected reward at z (d,)."""
        # einsum sums in one order whatever the number of threads; products by BLAS need not.
        p = np.einsum("kij,j->ki", self.factor, z)
        return np.einsum("ki,i->k", self.mean, z), np.sqrt(np.einsum("ki,ki->k", p, p))

    def update(self, arm: int, z: np.ndarray, reward: float) -> None:
        """Take one reward of an arm, in O(d²)."""
        self.precision[arm] += np.multiply.outer(z, z)
        self.moment[arm] += reward * z
        self.updates[arm] += 1
        self._rotate(arm, z)
        if self.updates[arm] % REFACTOR_EVERY == 0:
            with one_blas_thread():
                self._refactor(arm)
        self._solve(arm)

    def with_arm(self, *, regularisation: float, mean: np.ndarray) -> Posterior:
        """One more arm that knows nothing but its prior mean (d,); the others as they are."""
        new = Posterior.prior(1, self.dimension, regularisation=regularisation, mean=mean[None])
        return Posterior(
            *(
                np.concatenate([getattr(self, name), getattr(new, name)])
                for name in ("precision", "moment", "factor", "mean", "updates")
            )
        )

    def _rotate(self, arm: int, z: np.ndarray) -> None:
        """The factor of A + z zᵀ from that of A."""
        factor = self.factor[arm]
        p = np.einsum("ij,j->i", factor, z)
        t = 1.0 + np.cumsum(p * p)
        before = np.concatenate([[1.0], t[:-1]])
        above = np.zeros_like(factor)  # of each row, the sum over the rows above it; with its own it would lose digits
        np.cumsum(p[:-1, None] * factor[:-1], axis=0, out=above[1:])
        factor *= np.sqrt(before / t)[:, None]
        above *= (p / np.sqrt(t * before))[:, None]
        factor -= above

    def _refactor(self, arm: int) -> bool:
        """The factor from the precision; False, and the factor as it was, where that would lose digits."""
        try:
            lower = np.linalg.cholesky(self.precision[arm])
        except np.linalg.LinAlgError:  # indefinite by rounding
            return False
        inverse = np.tril(np.linalg.inv(lower))  # by NumPy's BLAS: SciPy's, if loaded late, is not on one thread
        if np.trace(self.precision[arm]) * np.square(inverse).sum() > WELL_CONDITIONED:  # ≥ the condition number
            return False
        self.factor[arm] = inverse
        return True

    def _solve(self, arm: int) -> None:
        factor = self.factor[arm]
        self.mean[arm] = np.einsum("ji,j->i", factor, np.einsum("ij,j->i", factor, self.moment[arm]))
