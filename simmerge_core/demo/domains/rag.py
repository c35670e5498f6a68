"""Look a key up in a short context: `{ab red;c blue}c=` -> `blue`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from simmerge_core.demo.domains.generator import Generator, random_word

COLOURS = ("red", "blue", "green", "black", "white", "pink", "gold", "grey")


def _lookup(value: Callable[[Random], str]) -> Generator:
    def generate(rng: Random) -> tuple[str, str]:
        pairs: dict[str, str] = {}
        size = rng.randint(2, 4)
        while len(pairs) < size:
            pairs[random_word(rng, 1, 2)] = value(rng)
        key = rng.choice(list(pairs))
        context = ";".join(f"{k} {v}" for k, v in pairs.items())
        return f"{{{context}}}{key}=", pairs[key]

    return generate


SKILLS: dict[str, Generator] = {
    "words": _lookup(lambda rng: random_word(rng, 3, 3)),
    "numbers": _lookup(lambda rng: str(rng.randint(10, 99))),
    "colours": _lookup(lambda rng: rng.choice(COLOURS)),
}
