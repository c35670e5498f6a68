"""Draw items of a domain from one split.

An item belongs to train (0-6), probe (7), A (8) or B (9) by crc32(prompt) mod 10: the split of a prompt never moves,
and the four are disjoint by construction.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from random import Random

from simmerge_core.demo.domains import DOMAINS
from simmerge_core.errors import CatalogError

SPLITS: dict[str, range] = {"train": range(7), "probe": range(7, 8), "A": range(8, 9), "B": range(9, 10)}
_TRIES = 4000  # to fall into a split of one tenth: failing by chance has odds below 1e-180
_TRIES_FOR_NEW = 60


def split_of(prompt: str) -> str:
    """Name of the split that `prompt` belongs to."""
    bucket = zlib.crc32(prompt.encode("utf-8")) % 10
    return next(name for name, buckets in SPLITS.items() if bucket in buckets)


def draw(domain: str, skill: str, split: str, rng: Random) -> tuple[str, str]:
    """Return one (prompt, answer) of the sub-skill that falls into `split`."""
    generate, buckets = DOMAINS[domain][skill], SPLITS[split]
    for _ in range(_TRIES):
        prompt, answer = generate(rng)
        if zlib.crc32(prompt.encode("utf-8")) % 10 in buckets:
            return prompt, answer
    raise CatalogError(f"Sub-skill {skill!r} of domain {domain!r} has no item in split {split!r}: widen its range.")


def item_set(domain: str, split: str, count: int, rng: Random, *, skills: Sequence[str]) -> list[tuple[str, str]]:
    """Return `count` items with distinct prompts, the sub-skills taking turns.

    A sub-skill that finds no new item drops out of the turn; `CatalogError` if all have dropped out.
    """
    chosen: dict[str, str] = {}
    turn = deque(skills)
    while len(chosen) < count:
        if not turn:
            raise CatalogError(f"Domain {domain!r} has fewer than {count} items in split {split!r}: ask for fewer.")
        skill = turn.popleft()
        for _ in range(_TRIES_FOR_NEW):
            prompt, answer = draw(domain, skill, split, rng)
            if prompt not in chosen:
                chosen[prompt] = answer
                turn.append(skill)
                break
    return list(chosen.items())


def draw_batch(
    count: int,
    rng: Random,
    *,
    domain_weights: Mapping[str, float],
    skill_weights: Mapping[str, Mapping[str, float]],
) -> list[tuple[str, str]]:
    """Return `count` training items: domain by weight, then sub-skill by weight."""
    domains = list(domain_weights)
    batch = []
    for domain in rng.choices(domains, weights=list(domain_weights.values()), k=count):
        weights = skill_weights[domain]
        (skill,) = rng.choices(list(weights), weights=list(weights.values()))
        batch.append(draw(domain, skill, "train", rng))
    return batch
