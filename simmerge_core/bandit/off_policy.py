"""What a policy would have earned, from rounds that another one logged: off-policy evaluation before it goes live.

With logged context x, arm a, reward r and propensity p = μ(a | x), target π, weight w = π(a | x) / p, a reward model
q̂ and v = Σₐ π(a | x) q̂(x, a), the estimators are means over rounds of

    dm           v                          direct method: as good as the model
    ips          w r                        unbiased (Horvitz & Thompson, 1952)
    snips        w r, over the mean of w    nearly unbiased, moves with the rewards (Swaminathan & Joachims, 2015)
    clipped_ips  min(w, clip) r             biased towards 0, smaller variance (Ionides, 2008; Bottou et al., 2013)
    dr           v + w (r − q̂)              unbiased whatever the model is (Dudík, Langford & Li, 2011)
    sndr         v, plus w (r − q̂) over w   (Thomas & Brunskill, 2016, for one step)
    switch_dr    v + w (r − q̂) [w ≤ clip]   the model alone where the weight is large (Wang, Agarwal & Dudík, 2017)

Intervals come from influence values ψ, by the delta method for the ratios: the variance of the mean is
G / (G − 1) · Σ_g (Σ_{i ∈ g} ψᵢ)² / n² over G groups of rounds that share something, a group a round by default, with
Student's t of G − 1 degrees of freedom (Cameron & Miller, 2015). They hold the sampling error alone: not the bias of a
model (dm), of clipping, or of arms that were never logged. A policy that learned while it logged leaves ips and dr
unbiased, as its propensities are those of the moment; the intervals are then approximate where propensities vanish
(Hadad et al., 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simmerge_core.bandit.context import Context
from simmerge_core.bandit.policies import LinearBandit
from simmerge_core.bandit.posterior import Posterior
from simmerge_core.errors import BanditError
from simmerge_core.selector.threads import one_blas_thread

LEAST_SUPPORT = 0.99
"""Share of the target's probability that must lie on arms that could have been logged: below it the bias of estimates
by weight may exceed 1 % of the greatest reward."""

_SUM = 1e-6  # by which probabilities may miss a sum of 1
_SURE = 1e-12
_TIE = 1e-12
_BLOCK = 1 << 22  # numbers of bootstrap counts held at once


@dataclass(frozen=True, eq=False)
class LoggedRounds:
    """n rounds as they were decided and rewarded; refused where one of them cannot be used.

    Attributes
    ----------
    contexts
        (n, d) float64.
    arms
        (n,) integers, the arm of each round.
    rewards
        (n,) float64.
    propensities
        (n,) float64 in (0, 1]: probability with which the logging policy chose that arm at that context.
    logging
        (n, K) float64, its probabilities of every arm where they are known: they say which arms had support.
    """

    contexts: np.ndarray
    arms: np.ndarray
    rewards: np.ndarray
    propensities: np.ndarray
    logging: np.ndarray | None = None

    def __post_init__(self) -> None:
        arms = np.asarray(self.arms)
        if arms.dtype.kind not in "iu":
            raise BanditError(f"The logged arms are of type {arms.dtype}: give their integer positions.")
        found: dict[str, np.ndarray] = {"arms": arms.astype(np.int64)}
        for name in ("contexts", "rewards", "propensities"):
            found[name] = np.asarray(getattr(self, name), dtype=np.float64)
        n = found["rewards"].size
        flat = all(found[name].shape == (n,) for name in ("arms", "rewards", "propensities"))
        if not flat or found["contexts"].ndim != 2 or len(found["contexts"]) != n:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in found.items())
            raise BanditError(f"The logged rounds have the shapes {shapes}: give contexts (n, d) and the others (n,).")
        if n < 2:
            raise BanditError(f"A log of {n} rounds has no spread to judge by: give at least 2.")
        p = found["propensities"]
        for array, usable, what, remedy in (
            (p, (p > 0.0) & (p <= 1.0 + _SURE), "propensity", "log the probability in (0, 1] of the arm chosen"),
            (arms, arms >= 0, "arm", "give positions from 0"),
            (found["rewards"], np.isfinite(found["rewards"]), "reward", "leave out rounds without one"),
        ):
            if not usable.all():
                row = int(np.argmin(usable))
                raise BanditError(f"Round {row} of the log has the {what} {array[row]!s}: {remedy}.")
        if not np.isfinite(found["contexts"]).all():
            row = int(np.argmin(np.isfinite(found["contexts"]).all(axis=1)))
            raise BanditError(f"The context of round {row} of the log holds a number that is not finite: leave it out.")
        found["propensities"] = np.minimum(p, 1.0)
        if self.logging is not None:
            found["logging"] = full = _probabilities(self.logging, n, "logged")
            _known(found["arms"], full.shape[1])
            wrong = np.abs(full[np.arange(n), found["arms"]] - p) > _SUM
            if wrong.any():
                row = int(np.argmax(wrong))
                raise BanditError(
                    f"Round {row} of the log has the propensity {p[row]:g}, and its row of probabilities says "
                    f"{full[row, arms[row]]:g} for that arm: give both of the same policy."
                )
        for name, array in found.items():
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The value of a target policy, or a difference of two, by one estimator.

    Attributes
    ----------
    name
        Of the estimator, as this file lists them.
    value, low, high, standard_error
        In units of a reward; NaN where no logged arm has any weight and the estimator divides by weights.
    effective_sample_size
        (Σw)² / Σw² of the weights it uses (Kong, 1992), in rounds; of a difference the smaller one.
    largest_weight
        Of a difference the larger one. The direct method weighs rounds alike.
    rounds, groups
        How many rounds, and how many groups of them the interval takes for independent.
    support
        Share of the target's probability on arms that could have been logged: whose probability there was at least one
        in the number of rounds, since rarer ones are hardly ever among them. Where the log holds the chosen arm's
        propensity alone this is the most that it can be: only rounds of propensity 1 say what was never chosen.
    unsupported
        True where that lies below `LEAST_SUPPORT` and the estimator relies on logged rewards: its bias is then of the
        size of what those arms earn (ips), or of the model's error there (dr).
    """

    name: str
    value: float
    low: float
    high: float
    standard_error: float
    effective_sample_size: float
    largest_weight: float
    rounds: int
    groups: int
    support: float
    unsupported: bool

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; None for NaN."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


def evaluate_policy(
    rounds: LoggedRounds,
    target: np.ndarray,
    rewards_model: np.ndarray | Posterior | None = None,
    *,
    groups: np.ndarray | None = None,
    clip: float | None = None,
    level: float = 0.95,
    draws: int = 0,
    seed: int = 0,
) -> tuple[Estimate, ...]:
    """Value of a target policy by every estimator that the arguments allow.

    Parameters
    ----------
    target
        (n, K) probabilities of the target policy at the logged contexts.
    rewards_model
        (n, K) predicted rewards, or the posterior that predicts them, for the direct method and the doubly robust
        ones. It must not have been fitted to these rounds: take a warm-started posterior from before them, or
        `cross_fitted_rewards`.
    groups
        (n,) ids; rounds of one group may depend on each other, as the steps of one plan share the reward of one merge.
    clip
        Weight > 0 above which clipped_ips and switch_dr hold back.
    level
        Of the intervals.
    draws
        Draws of a percentile bootstrap of the groups for `low` and `high` in place of Student's t; none if 0.

    Raises
    ------
    BanditError
        If the target, model or groups are of other shapes or no probabilities.
    """
    probabilities, terms = _checked_terms(rounds, target, rewards_model, clip)
    return _estimates(rounds, [(1.0, terms)], support_of(rounds, probabilities), groups, level, draws, seed)


def compare(
    rounds: LoggedRounds,
    first: np.ndarray,
    second: np.ndarray,
    rewards_model: np.ndarray | Posterior | None = None,
    *,
    groups: np.ndarray | None = None,
    clip: float | None = None,
    level: float = 0.95,
    draws: int = 0,
    seed: int = 0,
) -> tuple[Estimate, ...]:
    """How much more `first` earns than `second`, from the same rounds; parameters as of `evaluate_policy`.

    The interval is that of the paired difference: what both policies do alike cancels round by round.
    """
    one, terms = _checked_terms(rounds, first, rewards_model, clip)
    other, against = _checked_terms(rounds, second, rewards_model, clip)
    if one.shape != other.shape:
        raise BanditError(
            f"The policies choose among {one.shape[1]} and {other.shape[1]} arms: give both over the same."
        )
    support = min(support_of(rounds, one), support_of(rounds, other))
    return _estimates(rounds, [(1.0, terms), (-1.0, against)], support, groups, level, draws, seed)


def support_of(rounds: LoggedRounds, target: np.ndarray) -> float:
    """Share of the target's probability (n, K) on arms that could have been logged, as `Estimate.support` says."""
    if rounds.logging is not None:
        if rounds.logging.shape != target.shape:
            raise BanditError(
                f"The target has probabilities of {target.shape[1]} arms, and the log of {rounds.logging.shape[1]}: "
                "give both over the same arms."
            )
        return float((target * (rounds.logging >= 1.0 / len(rounds))).sum(axis=1).mean())
    chosen = target[np.arange(len(rounds)), rounds.arms]
    return float(np.where(rounds.propensities >= 1.0 - _SURE, chosen, 1.0).mean())


def cross_fitted_rewards(
    contexts: np.ndarray,
    arms: np.ndarray,
    rewards: np.ndarray,
    count: int,
    *,
    regularisation: float = 1.0,
    folds: int = 5,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Reward of every arm at every logged context, from models that saw no round of its fold.

    Each arm is a Bayesian ridge with prior mean zero, so an arm without rounds in the other folds predicts 0. Where
    the logging policy learned from these rounds, later ones depend on earlier rewards, and doubly robust estimates
    are unbiased only up to that; a model from before the log has no such part.

    Parameters
    ----------
    contexts, arms, rewards
        (n, d), (n,), (n,) as logged.
    count
        Arms, K.
    regularisation
        λ > 0 of the ridge.
    folds
        At least 2 and at most the groups of rounds.
    groups
        (n,) ids; rounds of one group lie in one fold.

    Returns
    -------
    (n, K) float64.
    """
    log = LoggedRounds(contexts, arms, rewards, np.ones(len(rewards)))  # refuses what cannot be used
    z, r, arms = log.contexts, log.rewards, log.arms
    _known(arms, count)
    _, index = _grouped(groups, len(r))
    units = int(index.max()) + 1
    if not 2 <= folds <= units:
        raise BanditError(f"{folds} folds cannot hold out {units} groups of rounds: give from 2 to {units}.")
    fold = (np.random.default_rng(seed).permutation(units) % folds)[index]
    labels = np.full((len(r), count), np.nan)
    labels[np.arange(len(r)), arms] = r
    out = np.empty((len(r), count))
    for held in range(folds):
        test = fold == held
        model = Posterior.prior(count, z.shape[1], regularisation=regularisation)
        model.observe(z[~test], labels[~test])
        out[test] = _predicted(model, z[test])
    return out


def target_probabilities(bandit: LinearBandit, contexts: Sequence[Context | np.ndarray]) -> np.ndarray:
    """(n, K) probabilities of a bandit as it stands, which learns nothing."""
    if not len(contexts):
        raise BanditError("There are no contexts to ask the bandit about: give at least one.")
    return np.stack([bandit.probabilities(context) for context in contexts])


def greedy_probabilities(predicted: np.ndarray) -> np.ndarray:
    """(n, K) probabilities of taking the best predicted arm, equal ones alike; −inf is never taken."""
    predicted = np.asarray(predicted, dtype=np.float64)
    highest = predicted.max(axis=1, keepdims=True) if predicted.ndim == 2 and predicted.shape[1] else np.empty(0)
    if predicted.ndim != 2 or not np.isfinite(highest).all():
        raise BanditError(
            f"The predictions of shape {predicted.shape} do not have a greatest number in every row: give (n, K) "
            "without NaN."
        )
    best = predicted >= highest - _TIE
    return best / best.sum(axis=1, keepdims=True)


@dataclass(frozen=True, slots=True)
class _Terms:
    """An estimator as mean(plain) + mean(top) / mean(bottom), each (n,), and the weights it uses."""

    name: str
    plain: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    weights: np.ndarray

    @property
    def value(self) -> float:
        total = float(self.bottom.sum())
        return float(self.plain.mean()) + (float(self.top.sum()) / total if total else math.nan)

    @property
    def influence(self) -> np.ndarray:
        """(n,) first-order effect of each round on n times the value; sums to zero."""
        level = float(self.bottom.mean()) or math.nan
        ratio = float(self.top.mean()) / level
        return self.plain - self.plain.mean() + (self.top - ratio * self.bottom) / level

    @property
    def effective(self) -> float:
        largest = float(self.weights.max())
        if largest == 0.0:
            return 0.0
        scaled = self.weights / largest  # squares of very large weights would overflow
        return float(scaled.sum() ** 2 / (scaled**2).sum())


def _checked_terms(
    rounds: LoggedRounds, target: np.ndarray, rewards_model: np.ndarray | Posterior | None, clip: float | None
) -> tuple[np.ndarray, list[_Terms]]:
    probabilities = _probabilities(target, len(rounds), "target's")
    _known(rounds.arms, probabilities.shape[1])
    if clip is not None and not clip > 0.0:
        raise BanditError(f"The clip {clip:g} leaves no weight: give a number above 0.")
    if isinstance(rewards_model, Posterior):
        if rewards_model.dimension != rounds.contexts.shape[1]:
            raise BanditError(
                f"The reward model takes contexts of {rewards_model.dimension} coordinates, and the log's have "
                f"{rounds.contexts.shape[1]}: give one of the same encoder."
            )
        rewards_model = _predicted(rewards_model, rounds.contexts)
    if rewards_model is None:
        return probabilities, _terms(rounds, probabilities, None, clip)
    predicted = np.asarray(rewards_model, dtype=np.float64)
    if predicted.shape != probabilities.shape or not np.isfinite(predicted).all():
        raise BanditError(
            f"The predicted rewards have shape {predicted.shape}: give finite numbers of shape {probabilities.shape}, "
            "as the target's probabilities."
        )
    return probabilities, _terms(rounds, probabilities, predicted, clip)


def _terms(rounds: LoggedRounds, target: np.ndarray, predicted: np.ndarray | None, clip: float | None) -> list[_Terms]:
    rows = np.arange(len(rounds))
    r, w = rounds.rewards, target[rows, rounds.arms] / rounds.propensities
    zero, one = np.zeros(len(rounds)), np.ones(len(rounds))
    out = [_Terms("ips", w * r, zero, one, w), _Terms("snips", zero, w * r, w, w)]
    if clip is not None:
        low = np.minimum(w, clip)
        out.append(_Terms("clipped_ips", low * r, zero, one, low))
    if predicted is None:
        return out
    v, rest = (target * predicted).sum(axis=1), r - predicted[rows, rounds.arms]
    out.insert(0, _Terms("dm", v, zero, one, one))
    out += [_Terms("dr", v + w * rest, zero, one, w), _Terms("sndr", v, w * rest, w, w)]
    if clip is not None:
        kept = np.where(w <= clip, w, 0.0)
        out.append(_Terms("switch_dr", v + kept * rest, zero, one, kept))
    return out


def _estimates(
    rounds: LoggedRounds,
    sides: list[tuple[float, list[_Terms]]],
    support: float,
    groups: np.ndarray | None,
    level: float,
    draws: int,
    seed: int,
) -> tuple[Estimate, ...]:
    """One estimate per estimator, of the sum of sign × value over the sides."""
    from scipy.special import stdtrit

    if not 0.0 < level < 1.0:
        raise BanditError(f"The level {level:g} is no probability of an interval: give one between 0 and 1.")
    sizes, index = _grouped(groups, len(rounds))
    count = len(sizes)
    if count < 2:
        raise BanditError("All rounds of the log are of one group, which has no spread to judge by: give 2 or more.")
    bounds = _bootstrap(sides, sizes, index, level, draws, seed) if draws else None
    reach = float(stdtrit(count - 1, 0.5 + level / 2.0))
    out = []
    for number, terms in enumerate(sides[0][1]):
        parts = [(sign, side[number]) for sign, side in sides]
        value = math.fsum(sign * part.value for sign, part in parts)
        influence = sum((sign * part.influence for sign, part in parts), np.zeros(len(rounds)))
        sums = np.bincount(index, weights=influence, minlength=count)
        error = math.sqrt(count / (count - 1) * float(sums @ sums)) / len(rounds)
        low, high = (value - reach * error, value + reach * error) if bounds is None else bounds[number].tolist()
        out.append(
            Estimate(
                name=terms.name,
                value=value,
                low=low,
                high=high,
                standard_error=error,
                effective_sample_size=min(part.effective for _, part in parts),
                largest_weight=max(float(part.weights.max()) for _, part in parts),
                rounds=len(rounds),
                groups=count,
                support=support,
                unsupported=support < LEAST_SUPPORT and terms.name != "dm",
            )
        )
    return tuple(out)


def _bootstrap(
    sides: list[tuple[float, list[_Terms]]], sizes: np.ndarray, index: np.ndarray, level: float, draws: int, seed: int
) -> np.ndarray:
    """(estimators, 2) percentiles under resampling of groups; NaN where fewer than half of the draws define one."""
    columns = [column for _, side in sides for t in side for column in (t.plain, t.top, t.bottom)]
    sums = np.stack([np.bincount(index, weights=c, minlength=len(sizes)) for c in columns] + [sizes], axis=1)
    numbers, shares = np.random.default_rng(seed), np.full(len(sizes), 1.0 / len(sizes))
    step, values = max(1, _BLOCK // len(sizes)), []
    for start in range(0, draws, step):
        counts = numbers.multinomial(len(sizes), shares, size=min(step, draws - start)).astype(np.float64)
        with one_blas_thread():
            drawn = counts @ sums
        n = drawn[:, -1:]
        plain, top, bottom = (drawn[:, part:-1:3].reshape(len(n), len(sides), -1) for part in range(3))
        ratio = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0.0)
        signs = np.array([sign for sign, _ in sides])
        values.append(np.einsum("s,dse->de", signs, plain / n[:, :, None] + ratio))
    every = np.concatenate(values)
    out = np.full((every.shape[1], 2), np.nan)
    for number, column in enumerate(every.T):
        defined = column[np.isfinite(column)]
        if 2 * len(defined) >= draws:
            out[number] = np.quantile(defined, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return out


def _grouped(groups: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounds of each group, and the group of each round."""
    if groups is None:
        return np.ones(n), np.arange(n)
    ids = np.asarray(groups)
    if ids.shape != (n,):
        raise BanditError(f"The groups have shape {ids.shape}, and the log has {n} rounds: give one id a round.")
    _, index, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    return sizes.astype(np.float64), index.reshape(n)


def _predicted(model: Posterior, contexts: np.ndarray) -> np.ndarray:
    return np.einsum("nd,kd->nk", contexts, model.mean)


def _known(arms: np.ndarray, count: int) -> None:
    if len(arms) and not (arms.min() >= 0 and arms.max() < count):
        raise BanditError(
            f"The log names arm {int(arms.max()) if arms.max() >= count else int(arms.min())}, and there are {count} "
            "arms counted from 0: give the probabilities and predictions of all of them."
        )


def _probabilities(given: np.ndarray, n: int, whose: str) -> np.ndarray:
    """(n, K) float64, refused where a row is no distribution."""
    p = np.asarray(given, dtype=np.float64)
    if p.ndim != 2 or len(p) != n or not p.shape[1]:
        raise BanditError(f"The {whose} probabilities have shape {p.shape}, and the log has {n} rounds: give ({n}, K).")
    wrong = ~((p >= 0.0).all(axis=1) & (np.abs(p.sum(axis=1) - 1.0) <= _SUM))  # NaN fails both
    if wrong.any():
        row = int(np.argmax(wrong))
        raise BanditError(
            f"The {whose} probabilities of round {row} are no distribution (they sum to {p[row].sum():g}, the least is "
            f"{p[row].min():g}): give numbers of at least 0 that sum to 1."
        )
    return p
