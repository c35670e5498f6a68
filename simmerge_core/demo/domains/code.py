"""Python expressions and their values.

The prompt is `>>>expression#`; `#` opens a comment in Python, so that `eval(prompt[3:])` is the truth as it stands,
and it tells the model where the expression ends.
"""

from __future__ import annotations

from random import Random

from simmerge_core.demo.domains.generator import Generator, random_word


def _reverse(rng: Random) -> tuple[str, str]:
    word = random_word(rng, 2, 5)
    return f">>>'{word}'[::-1]#", word[::-1]


def _element(rng: Random) -> tuple[str, str]:
    values = [rng.randrange(10) for _ in range(rng.randint(3, 4))]
    index = rng.choice([-2, -1, 0, 1, 2])
    return f">>>[{','.join(map(str, values))}][{index}]#", str(values[index])


def _sorted_element(rng: Random) -> tuple[str, str]:
    values = [rng.randrange(10) for _ in range(3)]
    index = rng.choice([-1, 0, 1])
    return f">>>sorted([{','.join(map(str, values))}])[{index}]#", str(sorted(values)[index])


def _slice(rng: Random) -> tuple[str, str]:
    word = random_word(rng, 4, 6)
    start = rng.randrange(3)
    stop = rng.randint(start + 1, 4)
    return f">>>'{word}'[{start}:{stop}]#", word[start:stop]


def _length(rng: Random) -> tuple[str, str]:
    word = random_word(rng, 1, 9)
    return f">>>len('{word}')#", str(len(word))


def _truth(rng: Random) -> tuple[str, str]:
    a, b, c, d = (rng.randrange(10) for _ in range(4))
    first, joint, second = rng.choice("<>"), rng.choice(["and", "or"]), rng.choice("<>")
    left = a < b if first == "<" else a > b
    right = c < d if second == "<" else c > d
    value = (left and right) if joint == "and" else (left or right)
    return f">>>{a}{first}{b} {joint} {c}{second}{d}#", str(value)


SKILLS: dict[str, Generator] = {
    "reverse": _reverse,
    "element": _element,
    "sorted": _sorted_element,
    "slice": _slice,
    "length": _length,
    "truth": _truth,
}
