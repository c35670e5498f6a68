"""Which orders are plans at all: size, required checkpoints, at most one expert per domain (§3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simmerge_core.errors import SelectionError


@dataclass(frozen=True, slots=True)
class Pool:
    """N candidates and the rules for choosing k of them.

    Attributes
    ----------
    domain
        (N,) integer domain of each checkpoint.
    expert_domains
        Domains of which every plan holds exactly one checkpoint.
    required
        Indices that every plan holds.
    one_per_domain
        Whether a plan may hold at most one checkpoint of each domain.
    k
        Checkpoints in a plan.
    """

    domain: np.ndarray
    expert_domains: tuple[int, ...]
    required: tuple[int, ...]
    one_per_domain: bool
    k: int

    def __len__(self) -> int:
        return len(self.domain)

    def subsets(self) -> int:
        """Number of sets that satisfy the rules, without listing them."""
        room = [1] + [0] * self.k  # room[j]: ways to have chosen j checkpoints from the domains so far
        for d in range(int(self.domain.max()) + 1):
            inside = np.flatnonzero(self.domain == d)
            forced = sum(1 for r in self.required if self.domain[r] == d)
            ways = [0] * (self.k + 1)
            for count in range(self.k + 1):
                if count >= forced and self._allowed(d, count):
                    ways[count] = math.comb(len(inside) - forced, count - forced)
            room = [sum(room[j] * ways[n - j] for j in range(n + 1)) for n in range(self.k + 1)]
        return room[self.k]

    def completions(self, members: np.ndarray) -> int:
        """Number of sets that satisfy the rules and hold all of `members`."""
        return replace(self, required=tuple(sorted({*self.required, *map(int, members)}))).subsets()

    def _allowed(self, domain: int, count: int) -> bool:
        if domain in self.expert_domains:
            return count == 1
        return count <= 1 or not self.one_per_domain

    def extensible(self, members: np.ndarray) -> np.ndarray:
        """(n,) bool: whether prefixes (n, j) can still become plans."""
        n, j = members.shape
        domains = self.domain[members]  # (n, j)
        fine = np.ones(n, dtype=bool)
        for first in range(j):
            for second in range(first + 1, j):
                same = domains[:, first] == domains[:, second]
                if not self.one_per_domain:
                    same &= np.isin(domains[:, first], self.expert_domains)
                fine &= ~same
        # The places left must hold every required checkpoint and one of every domain that must be there.
        owed = np.zeros(n, dtype=np.int64)
        for required in self.required:
            owed += ~(members == required).any(axis=1)
        covered = {int(self.domain[r]) for r in self.required}
        for d in self.expert_domains:
            if d not in covered:
                owed += ~(domains == d).any(axis=1)
        fine &= owed <= self.k - j
        for required in self.required:
            if self.one_per_domain or int(self.domain[required]) in self.expert_domains:
                rival = (domains == self.domain[required]) & (members != required)
                fine &= ~rival.any(axis=1)
        return fine

    def appendable(self, members: np.ndarray) -> np.ndarray:
        """(n, N) bool: which checkpoints can follow prefixes (n, j) that are `extensible` themselves.

        The same as asking `extensible` for every prefix with every checkpoint, many times cheaper.
        """
        n, j = members.shape
        rows = np.arange(n)[:, None]
        experts = np.zeros(int(self.domain.max()) + 1, dtype=bool)
        experts[list(self.expert_domains)] = True
        limited = np.ones_like(experts) if self.one_per_domain else experts
        held = np.zeros((n, len(experts)), dtype=bool)
        held[rows, self.domain[members]] = True
        fine = ~(held & limited)[:, self.domain]  # (n, N)
        fine[rows, members] = False
        owed = np.zeros(n, dtype=np.int64)
        pays = np.zeros((n, len(self)), dtype=bool)
        for required in self.required:
            missing = ~(members == required).any(axis=1)
            owed += missing
            pays[:, required] |= missing
            if limited[self.domain[required]]:  # its rivals would take its place
                fine[:, (self.domain == self.domain[required]) & (np.arange(len(self)) != required)] = False
        covered = self.domain[list(self.required)]
        for d in self.expert_domains:
            if d not in covered:
                owed += ~held[:, d]
                pays |= ~held[:, d, None] & (self.domain == d)
        return fine & (pays | (owed < self.k - j)[:, None])


def pool_of(
    checkpoints: Sequence[str],
    domains: Sequence[str],
    *,
    tasks: Sequence[str],
    k: int,
    require: Sequence[str] = (),
    one_per_domain: bool = True,
) -> Pool:
    """Rules for a target: exactly one expert of each target task where the pool has one and k leaves room (§3.1, §3.2).

    Raises
    ------
    SelectionError
        If k does not fit the pool, or no set of k checkpoints satisfies the rules.
    """
    if not 2 <= k <= len(checkpoints):
        raise SelectionError(
            f"A plan of k = {k} checkpoints cannot be made from a pool of {len(checkpoints)}: "
            f"choose k from 2 to {len(checkpoints)}."
        )
    unknown = [c for c in require if c not in checkpoints]
    if unknown:
        raise SelectionError(f"The required checkpoints {unknown} are not in the pool: add them to it.")
    names = sorted(set(domains))
    domain = np.array([names.index(d) for d in domains], dtype=np.int64)
    required = tuple(sorted({list(checkpoints).index(c) for c in require}))
    if len(required) > k:
        raise SelectionError(f"{len(required)} checkpoints are required, but a plan holds only k = {k}: raise k.")
    experts = [names.index(t) for t in tasks if t in names]
    if len(experts) > k:
        experts = []
    pool = Pool(domain, tuple(experts), required, one_per_domain, k)
    if pool.subsets() == 0:
        rule = "with at most one expert per domain" if one_per_domain else "with exactly one expert per target task"
        raise SelectionError(
            f"No set of k = {k} checkpoints {rule} holds {list(require) or 'what the target needs'}: the pool has the "
            f"domains {names}; lower k, or add checkpoints of other domains."
        )
    return pool
