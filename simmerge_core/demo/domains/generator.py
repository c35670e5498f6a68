"""What a sub-skill's generator is, and the random words several of them use."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Generator = Callable[[Random], tuple[str, str]]

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def seeded(*key: object) -> Random:
    """Return a generator whose draws depend on `key` alone, on every machine."""
    return Random("/".join(map(str, key)))  # noqa: S311 - reproducible draws are the purpose


def random_word(rng: Random, shortest: int, longest: int) -> str:
    """Return a string of lower-case letters with a length in [shortest, longest]."""
    return "".join(rng.choices(LETTERS, k=rng.randint(shortest, longest)))
