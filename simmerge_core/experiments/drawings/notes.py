"""The line below a figure: what it rests on, from the result itself."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from simmerge_core.analysis.figures.style import label
from simmerge_core.experiments.drawings.estimates import Estimate

_NUMBERS = {3: "three", 4: "four"}

INTERVALS = "lines are 95\u00a0% intervals over checkpoints"

_CHARACTERS_PER_INCH = 15.0
"""Of the note's type; a line that is wider than the figure would be cut off."""


def note(*parts: str, width: float = 9.0) -> str:
    """Parts joined and broken into lines that fit a figure of `width` inches."""
    text = "; ".join(part for part in parts if part)
    most = int(_CHARACTERS_PER_INCH * width)
    lines = max(1, math.ceil(len(text) / most))
    even = min(most, math.ceil(len(text) / lines) + 10)  # no last line of a single word
    return "\n".join(textwrap.wrap(text[:1].upper() + text[1:], even))


def along(rows: pl.DataFrame) -> str:
    """On which items was chosen and scored, from the raw rows' directions."""
    directions = sorted(d for d in rows["direction"].unique().to_list() if d is not None)
    if not directions:
        return ""
    seen, _, scored = directions[0].partition("->")
    reverse = ", and the reverse" if len(directions) > 1 else ""
    return f"chosen on items {seen}, scored on {scored}{reverse}"


def pair_count(rows: pl.DataFrame) -> int:
    """Pairs in raw rows, each once whatever its methods, tasks and directions."""
    return rows.select("a", "b").unique().height


def configurations(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """How many configurations there are of each k."""
    counts = [f"{sections[k]['configurations']} of {_NUMBERS.get(int(k), k)}" for k in sorted(sections)]
    return f"configurations: {', '.join(counts)}"


def beyond(figures: Iterable[Estimate], bounds: tuple[float, float]) -> str:
    """A word on intervals that the axis cuts off, where there are any."""
    cut = any(not bounds[0] <= v <= bounds[1] for e in figures for v in e.known)
    low, high = (f"{bound:g}".replace("-", "−") for bound in bounds)
    return f"shown from {low} to {high}, some reach further" if cut else ""


def left_out(section: Mapping[str, Any]) -> str:
    """Tasks whose gap between expert and auxiliary is too small for GapClosed."""
    guard = section.get("guard", {})
    tasks = guard.get("excluded_tasks") or []
    return f"without {', '.join(map(label, tasks))} (gap below {guard['min_gap']:g})" if tasks else ""
