"""Markdown tables with figures and intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left and the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(value: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """A figure, or a dash where it is not defined."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def with_interval(
    figure: Mapping[str, Any] | None, digits: int = 1, *, signed: bool = False, scale: float = 1.0
) -> str:
    """A figure with its 95 % interval in brackets."""
    if figure is None or figure["value"] is None:
        return "–"
    low, high = figure["ci95"]
    middle = number(scale * figure["value"], digits, signed=signed)
    if low is None:
        return middle
    return f"{middle} [{number(scale * low, digits)}, {number(scale * high, digits)}]"
