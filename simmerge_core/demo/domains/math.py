"""Arithmetic on natural numbers: addition, subtraction, multiplication, the largest of three."""

from __future__ import annotations

from random import Random

from simmerge_core.demo.domains.generator import Generator


def _add(rng: Random) -> tuple[str, str]:
    a, b = rng.randrange(60), rng.randrange(60)
    return f"{a}+{b}=", str(a + b)


def _subtract(rng: Random) -> tuple[str, str]:
    b, a = sorted((rng.randrange(60), rng.randrange(60)))
    return f"{a}-{b}=", str(a - b)


def _multiply(rng: Random) -> tuple[str, str]:
    a, b = rng.randrange(20), rng.randrange(13)
    return f"{a}*{b}=", str(a * b)


def _largest(rng: Random) -> tuple[str, str]:
    values = [rng.randrange(100) for _ in range(3)]
    return f"max {','.join(map(str, values))}=", str(max(values))


SKILLS: dict[str, Generator] = {"add": _add, "subtract": _subtract, "multiply": _multiply, "largest": _largest}
