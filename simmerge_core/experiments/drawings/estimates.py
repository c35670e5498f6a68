"""Figures with intervals as results hold them, where any part may be undefined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; None where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the interval, where it is defined."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def known(self) -> list[float]:
        """Whatever is defined, for the extent of an axis."""
        return [v for v in (self.value, self.low, self.high) if v is not None]

    def scaled(self, factor: float) -> Estimate:
        """In another unit."""
        return Estimate(*(None if v is None else factor * v for v in (self.value, self.low, self.high)))

    def text(self, digits: int, *, signed: bool = False) -> str:
        """Value and interval, a dash where there is no value."""
        value = as_text(self.value, digits, signed=signed)
        if self.value is None or self.ends is None:
            return value
        low, high = (as_text(v, digits, signed=signed) for v in self.ends)
        return f"{value} [{low}, {high}]"


def estimate(figure: Mapping[str, Any] | None) -> Estimate:
    """From ``{"value": …, "ci95": [low, high]}``; nothing gives an undefined one."""
    if figure is None:
        return Estimate(None)
    low, high = figure["ci95"]
    return Estimate(figure["value"], low, high)


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is defined; None where nothing is."""
    found = [v for v in values if v is not None]
    return float(np.mean(found)) if found else None


def with_means(series: Mapping[str, Sequence[float | None]]) -> dict[str, list[float | None]]:
    """Each series followed by its mean over the places where all are defined, so that means are over the same tasks."""
    common = [place for place, values in enumerate(zip(*series.values(), strict=True)) if None not in values]
    return {name: [*values, mean(values[place] for place in common)] for name, values in series.items()}


def finite(value: float | None) -> float:
    """For matplotlib, which leaves out NaN."""
    return np.nan if value is None else float(value)


def as_text(value: float | None, digits: int, *, signed: bool = False) -> str:
    """A value with a true minus, zero without a sign, a dash where there is none."""
    if value is None:
        return "–"
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0.0:
        return text
    return f"−{text}" if value < 0 else f"+{text}" if signed else text
