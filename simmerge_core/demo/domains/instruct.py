"""Follow a one-word instruction on a short string: `reverse ab|` -> `ba`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from simmerge_core.demo.domains.generator import Generator, random_word


def _instruction(name: str, transform: Callable[[str], str]) -> Generator:
    def generate(rng: Random) -> tuple[str, str]:
        word = random_word(rng, 2, 5)
        return f"{name} {word}|", transform(word)

    return generate


SKILLS: dict[str, Generator] = {
    "upper": _instruction("upper", str.upper),
    "twice": _instruction("twice", lambda word: word + word),
    "reverse": _instruction("reverse", lambda word: word[::-1]),
    "dash": _instruction("dash", "-".join),
    "ends": _instruction("ends", lambda word: word[0] + word[-1]),
}
