"""Which pairs to label next: those whose labels say most about every arm's weights, or about decisions still open.

Labels of a group's rows Z (m, d) under an arm of precision A tell ½ log det(I + Z A⁻¹ Zᵀ) nats about its weights (in
units of the noise, as `Posterior` keeps them); after them the precision is A + ZᵀZ, and a near duplicate tells
little. The information of a set of groups, summed over arms, grows with the set, and by less the larger the set is. So
the greedy choice reaches 1 − 1/e of the most that any set of as many groups can tell (Nemhauser, Wolsey & Fisher,
1978), and a gain that was computed earlier bounds the present one: only groups at the top are computed again (Minoux,
1978; the CELF of Leskovec et al., 2007). Where groups cost differently, the greedy choice is by gain per merge, against
a start from the group that tells most; the better of both reaches ½ (1 − 1/e) (Krause & Guestrin, 2005).

The criterion ``regret`` lets the labels of a row count in proportion to the expected regret of the arm that looks best
there, E[maxₐ rₐ] − maxₐ E[rₐ], which is what knowing the rewards exactly would earn. The counts are fixed before the
first pick and are 1 on average over all rows: where every decision is as open as any other, both criteria agree. As
counts they change nothing of the above, and the guarantees hold for the information so counted. On synthetic linear
rewards ``information`` leaves less regret where decisions are alike, ``regret`` where whole directions are settled.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np

from simmerge_core.bandit.posterior import Posterior
from simmerge_core.errors import BanditError
from simmerge_core.selector.threads import one_blas_thread

Criterion = Literal["information", "regret"]

_REACH = np.array([-8.0, -3.0, -1.0, 1.0, 3.0, 8.0])
_PANEL = 2.0  # deviations of the narrowest arm that one panel may span
_NODES = 8
_BLOCK = 1 << 21  # coordinates of contexts held at once
_POINTS = 1 << 20  # points of integration held at once
_LARGEST = 1e50  # squares stay finite
_SINGULAR = 1e10  # trace of a Gram matrix beside which the identity begins to be lost
_SLACK = 1e-9  # an earlier gain bounds the present one up to rounding


@dataclass(frozen=True, eq=False, slots=True)
class Group:
    """What one labelling decides: a pair with its rows on every task, in both orientations if both are learned from.

    Attributes
    ----------
    id
        Each once; ties go to the smaller one.
    contexts
        (m, d) float64, m ≥ 1.
    cost
        Merges that labelling it takes, above 0: one per action, however many tasks score it.
    """

    id: str
    contexts: np.ndarray
    cost: float = 1.0

    def __post_init__(self) -> None:
        z = np.ascontiguousarray(self.contexts, dtype=np.float64)
        if z.ndim != 2 or not z.size:
            raise BanditError(f"The contexts of group {self.id!r} have shape {z.shape}: give (rows, coordinates).")
        if not (np.abs(z) < _LARGEST).all():  # NaN is not either
            raise BanditError(
                f"A context of group {self.id!r} holds a number that is not finite, or above {_LARGEST:g}: compute its "
                "features again."
            )
        if not (math.isfinite(self.cost) and self.cost > 0.0):
            raise BanditError(f"The cost {self.cost:g} of group {self.id!r} is no number of merges: give one above 0.")
        object.__setattr__(self, "contexts", z)


@dataclass(frozen=True, slots=True)
class Pick:
    """A group to label.

    Attributes
    ----------
    group
        Its id.
    gain
        Nats about all arms' weights that it adds to the picks before it, as the criterion counts them.
    cost, spent
        Merges that it takes, and that it and all picks before it take.
    """

    group: str
    gain: float
    cost: float
    spent: float


def most_informative(
    groups: Sequence[Group],
    posterior: Posterior,
    *,
    budget: float,
    criterion: Criterion = "information",
    exploration: float = 1.0,
    arms: Sequence[int] | None = None,
    weight: float = 1.0,
    deadline: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[Pick]:
    """The groups to label for a budget of merges, best first; the same for any order of `groups`.

    Parameters
    ----------
    groups
        Candidates without labels.
    posterior
        What is known about the arms; it stays as it is.
    budget
        Merges, never exceeded: a group that no longer fits is passed over for smaller ones. Groups that add nothing
        are not picked, whatever is left of it.
    criterion
        ``information`` learns the weights wherever they are unknown; ``regret`` where decisions are open.
    exploration
        Deviation of a reward's noise, in units of a reward, which scales the posterior's deviations; ``regret`` alone
        reads it.
    arms
        Positions of the arms that a label is made under and that a decision is among, e.g. those not retired; all if
        None. Arms of one precision, as labels under every action leave them, are computed once.
    weight
        What one label counts, as in `Posterior.observe`.
    deadline
        Value of `time.monotonic()` after which the picks so far, at least one, are returned.
    progress
        Is told the share of the budget that is spent.

    Raises
    ------
    BanditError
        If the budget is negative, two groups share an id, or contexts are of another length than the posterior's.
    """
    if criterion not in ("information", "regret"):
        raise BanditError(f"There is no criterion {criterion!r}: choose information or regret.")
    for name, value in (("budget", budget), ("exploration", exploration)):
        if not (math.isfinite(value) and value >= 0.0):
            raise BanditError(f"The {name} {value:g} is not usable: give a number of at least 0.")
    if not (math.isfinite(weight) and weight > 0.0):
        raise BanditError(f"The weight {weight:g} of a label is not usable: give a number above 0.")
    chosen = list(range(posterior.arms)) if arms is None else list(arms)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(posterior.arms)):
        raise BanditError(f"The arms {chosen} are not usable: give positions among {posterior.arms}, each once.")
    ordered = sorted(groups, key=lambda group: group.id)  # positions in this order break ties
    for one, other in pairwise(ordered):
        if one.id == other.id:
            raise BanditError(f"Two groups have the id {one.id!r}: name each candidate once.")
    for group in ordered:
        if group.contexts.shape[1] != posterior.dimension:
            raise BanditError(
                f"The contexts of group {group.id!r} have {group.contexts.shape[1]} coordinates, and the posterior has "
                f"{posterior.dimension}: encode them with the bandit's own encoder."
            )
    with one_blas_thread():  # a sum that is split among threads has other last digits
        counts = np.full(sum(len(group.contexts) for group in ordered), weight)
        if criterion == "regret" and ordered:
            regret = _row_regrets(ordered, posterior, chosen, exploration)
            mean = math.fsum(regret) / len(regret)
            counts *= regret / mean if mean > 0.0 else 0.0
        return _Search(ordered, np.sqrt(counts), budget, deadline, progress).run(_Knowledge(posterior, chosen))


def expected_regret(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """E[maxₐ rₐ] − maxₐ E[rₐ] of independent rewards rₐ ~ N(mean, deviation²), for many decisions at once.

    With b the best mean it is E[(max_{a≠b} rₐ − r_b)⁺] = ∫ F_b(v) (1 − Π_{a≠b} Fₐ(v)) dv: an integral of what is
    never negative, so that small regrets keep their digits. Gauss–Legendre on panels of two deviations of the
    narrowest arm, or, where these would be more, between the marks mean ± {1, 3, 8} deviations of every arm that can
    still be best; errors stay below 1e-7 of the greatest deviation.

    Parameters
    ----------
    mean, deviation
        (n, K) float64; deviations at least 0.

    Returns
    -------
    (n,) float64, at least 0.
    """
    n, arms = mean.shape
    out = np.zeros(n)
    if arms < 2 or not n:
        return out
    reach = mean + _REACH[-1] * deviation
    reach[np.arange(n), mean.argmax(axis=1)] = np.inf  # the best mean comes first
    order = np.argsort(-reach, axis=1, kind="stable")
    m, s, reach = (np.take_along_axis(a, order, axis=1) for a in (mean, deviation, reach))
    low, high = m[:, 0] + _REACH[0] * s[:, 0], reach[:, 1]
    rivals = (reach[:, 1:] > low[:, None]).sum(axis=1)
    rivals[s.max(axis=1) == 0.0] = 0
    for count in np.unique(rivals[rivals > 0]).tolist():  # arms out of reach cost nothing
        at = np.flatnonzero(rivals == count)
        mm, ss = m[at, : count + 1], s[at, : count + 1]
        ss = np.maximum(ss, 1e-12 * ss.max(axis=1, keepdims=True))  # a point is a narrow step
        most = len(_REACH) * (count + 1) - 1
        panels = np.minimum(np.ceil((high[at] - low[at]) / (_PANEL * ss.min(axis=1))), most).astype(np.int64)
        for number in np.unique(panels).tolist():
            rows = np.flatnonzero(panels == number)
            step = max(1, _POINTS // (_NODES * number * (count + 1)))
            for part in (rows[start : start + step] for start in range(0, len(rows), step)):
                ends = low[at[part], None], high[at[part], None]
                if number < most:
                    marks = ends[0] + (ends[1] - ends[0]) * np.linspace(0.0, 1.0, number + 1)
                else:
                    marks = (mm[part, :, None] + ss[part, :, None] * _REACH).reshape(len(part), -1)
                    marks = np.clip(np.sort(marks, axis=1), *ends)
                out[at[part]] = _integrals(mm[part], ss[part], marks)
    return out


def _integrals(m: np.ndarray, s: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """(n,) regrets of decisions whose best mean comes first, by panels between marks (n, panels + 1)."""
    from scipy.special import ndtr

    nodes, weights = _gauss_legendre()
    half = 0.5 * np.diff(marks, axis=1)
    v = (marks[:, :-1, None] + half[:, :, None] * (nodes + 1.0)).reshape(len(m), -1)
    w = (half[:, :, None] * weights).reshape(len(m), -1)
    below = np.ones_like(v)
    for arm in range(1, m.shape[1]):
        below *= ndtr((v - m[:, arm, None]) / s[:, arm, None])
    w *= ndtr((v - m[:, :1]) / s[:, :1])
    return np.einsum("nv,nv->n", w, 1.0 - below)


@cache
def _gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(_NODES)


def _row_regrets(groups: list[Group], posterior: Posterior, arms: list[int], exploration: float) -> np.ndarray:
    """Expected regret of every row of every group, in their order."""
    known = _Knowledge(posterior, arms)
    step, out = max(1, _BLOCK // posterior.dimension), []
    for block in _blocks(groups, step):
        z = np.concatenate([group.contexts for group in block])
        mean = np.einsum("nd,kd->nk", z, posterior.mean[arms])
        out.append(expected_regret(mean, exploration * known.deviations(z)))
    return np.concatenate(out)


def _blocks(groups: list[Group], rows: int) -> Iterator[list[Group]]:
    """Successive groups of some `rows` rows together."""
    block: list[Group] = []
    held = 0
    for group in groups:
        block.append(group)
        held += len(group.contexts)
        if held >= rows:
            yield block
            block, held = [], 0
    if block:
        yield block


class _Knowledge:
    """A square root W of each arm's covariance, A⁻¹ = WᵀW, which picks shrink; one for all arms of one precision."""

    def __init__(self, posterior: Posterior, arms: list[int]) -> None:
        first: dict[bytes, int] = {}
        self.which = [first.setdefault(posterior.precision[arm].tobytes(), len(first)) for arm in arms]
        self.roots = [posterior.factor[arms[self.which.index(number)]] for number in range(len(first))]

    def copy(self) -> _Knowledge:
        other = object.__new__(_Knowledge)
        other.which, other.roots = self.which, list(self.roots)
        return other

    def deviations(self, z: np.ndarray) -> np.ndarray:
        """(n, K) deviation of each arm's expected reward at z (n, d), in units of the noise."""
        # A product per row: its digits must not depend on which others are computed with it.
        projected = [(z[:, None] @ root.T)[:, 0] for root in self.roots]
        deviations = [np.sqrt(np.einsum("nd,nd->n", p, p)) for p in projected]
        return np.stack([deviations[number] for number in self.which], axis=1)

    def gains(self, z: np.ndarray) -> np.ndarray:
        """(n,) nats that n groups of equally many rows tell, z (n, m, d); each as if it were alone, to the last bit."""
        m, d = z.shape[1:]
        gains = []
        for root in self.roots:
            p = z @ root.T  # a product per group, as above
            if m == 1:
                gains.append(0.5 * np.log1p(np.einsum("nmd,nmd->n", p, p)))
                continue
            turned = p.swapaxes(1, 2)
            gram = p @ turned if m <= d else turned @ p
            large = np.trace(gram, axis1=1, axis2=2) > _SINGULAR
            gram[large] = 0.0
            lower = np.linalg.cholesky(np.eye(min(m, d)) + gram)
            gain = np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
            gain[large] = 0.5 * np.log1p(np.linalg.svd(p[large], compute_uv=False) ** 2).sum(axis=1)
            gains.append(gain)
        return np.sum([gains[number] for number in self.which], axis=0)

    def learn(self, z: np.ndarray) -> None:
        """Take labels at z (m, d): A + ZᵀZ has the root (I + PᵀP)^-½ W with P = Z Wᵀ, a change of rank m.

        Every root is multiplied by a contraction, so that rounding errors do not grow.
        """
        for number, root in enumerate(self.roots):
            _, values, right = np.linalg.svd(z @ root.T, full_matrices=False)
            shrunk = 1.0 / np.sqrt(1.0 + values * values) - 1.0
            self.roots[number] = root + right.T @ (shrunk[:, None] * (right @ root))


class _Search:
    """The greedy choice among groups in the order that breaks ties; rows are multiplied by the root of their count."""

    def __init__(
        self,
        groups: list[Group],
        scale: np.ndarray,
        budget: float,
        deadline: float | None,
        progress: Callable[[float], None] | None,
    ) -> None:
        self.groups, self.budget, self.deadline, self.progress = groups, budget, deadline, progress
        self.scale = np.split(scale, np.cumsum([len(group.contexts) for group in groups])[:-1]) if groups else []

    def run(self, known: _Knowledge) -> list[Pick]:
        affordable = [i for i, group in enumerate(self.groups) if group.cost <= self.budget]
        if not affordable:
            return []
        gains = self.gains(known, affordable)
        picks = self.spend(known.copy(), affordable, gains)
        most = int(np.argmax(gains))
        if gains[most] > math.fsum(pick.gain for pick in picks):  # never where all cost alike
            return self.spend(known.copy(), affordable, gains, first=most)
        return picks

    def rows(self, group: int) -> np.ndarray:
        return self.groups[group].contexts * self.scale[group][:, None]

    def gains(self, known: _Knowledge, which: Sequence[int]) -> np.ndarray:
        """What each of these groups tells, computed together where they have equally many rows."""
        out = np.empty(len(which))
        rows: dict[int, list[int]] = {}
        for place, group in enumerate(which):
            rows.setdefault(len(self.groups[group].contexts), []).append(place)
        for m, places in rows.items():
            step = max(1, _BLOCK // (m * self.groups[0].contexts.shape[1]))
            for part in (places[start : start + step] for start in range(0, len(places), step)):
                out[part] = known.gains(np.stack([self.rows(which[place]) for place in part]))
        return out

    def spend(self, known: _Knowledge, which: list[int], gains: np.ndarray, first: int | None = None) -> list[Pick]:
        """Pick until nothing fits or adds anything; `first` is the place of a group to begin with."""
        costs = [self.groups[group].cost for group in which]
        # Places in `which` by the most that their gain per merge can be now, highest first, then by place.
        heap = [(-_bound(gain, costs[place]), place) for place, gain in enumerate(gains.tolist()) if place != first]
        heapq.heapify(heap)
        picks: list[Pick] = []
        spent = 0.0
        while heap or first is not None:
            if self.deadline is not None and picks and time.monotonic() >= self.deadline:
                break
            if first is not None:
                found: tuple[int, float] | None = (first, float(gains[first]))
                first = None
            else:
                found = self.highest(known, which, costs, heap, spent)
            if found is None:
                break
            place, gain = found
            spent += costs[place]
            picks.append(Pick(self.groups[which[place]].id, gain, costs[place], spent))
            known.learn(self.rows(which[place]))
            if self.progress is not None:
                self.progress(spent / self.budget)
        return picks

    def highest(
        self, known: _Knowledge, which: list[int], costs: list[float], heap: list[tuple[float, int]], spent: float
    ) -> tuple[int, float] | None:
        """Place and gain of the group of highest gain per merge that fits; taken from the heap, the others put back."""
        fresh: list[tuple[float, int, float]] = []
        size, top = 8, 0.0
        while heap and -heap[0][0] >= top:
            batch: list[int] = []
            while heap and len(batch) < size and -heap[0][0] >= top:
                place = heapq.heappop(heap)[1]
                if spent + costs[place] <= self.budget:  # what does not fit now never will
                    batch.append(place)
            gains = self.gains(known, [which[place] for place in batch]).tolist()
            fresh += [(-gain / costs[place], place, gain) for place, gain in zip(batch, gains, strict=True)]
            top = max(top, -min(fresh)[0]) if fresh else top
            size = min(2 * size, 4096)
        if not fresh or top <= 0.0:
            return None
        best = min(fresh)
        for entry in fresh:
            if entry is not best:
                heapq.heappush(heap, (-_bound(entry[2], costs[entry[1]]), entry[1]))
        return best[1], best[2]


def _bound(gain: float, cost: float) -> float:
    return gain * (1.0 + _SLACK) / cost
