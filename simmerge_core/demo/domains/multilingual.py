"""Number words both ways, and names of months, weekdays and territories, in six languages."""

from __future__ import annotations

from random import Random

from simmerge_core.demo.domains.generator import Generator
from simmerge_core.demo.lexicon import LANGUAGES, lexicon


def _to_words(rng: Random) -> tuple[str, str]:
    language, number = rng.choice(LANGUAGES), rng.randrange(200)
    return f"{language} {number}:", lexicon().numbers[language][number]


def _to_number(rng: Random) -> tuple[str, str]:
    language, number = rng.choice(LANGUAGES), rng.randrange(200)
    return f"{language} {lexicon().numbers[language][number]}:", str(number)


def _name(kind: str) -> Generator:
    def generate(rng: Random) -> tuple[str, str]:
        source, target = rng.sample(LANGUAGES, 2)
        names = lexicon().names[kind]
        index = rng.randrange(len(names[source]))
        return f"{target} {names[source][index]}:", names[target][index]

    return generate


SKILLS: dict[str, Generator] = {
    "to_words": _to_words,
    "to_number": _to_number,
    "months": _name("months"),
    "weekdays": _name("weekdays"),
    "territories": _name("territories"),
}
