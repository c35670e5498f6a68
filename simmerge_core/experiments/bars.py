"""The bars that were set beforehand (`protocol.yaml`), beside what was reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simmerge_core.experiments.protocol import Protocol
from simmerge_core.experiments.result import Result


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes
    ----------
    least
        What was to be reached.
    figure
        Value with its interval, None where the experiment was not run.
    above_zero
        Whether the interval has to lie above zero as well.
    """

    name: str
    least: float
    figure: Mapping[str, Any] | None
    above_zero: bool = False

    @property
    def met(self) -> bool | None:
        """None where the figure is missing."""
        if self.figure is None or self.figure["value"] is None:
            return None
        low = self.figure["ci95"][0]
        clear = not self.above_zero or (low is not None and low > 0)
        return bool(self.figure["value"] >= self.least and clear)


_PLACES: tuple[tuple[str, str | None, tuple[str, ...], bool], ...] = (
    (
        "pair split: share of the honest oracle's gain",
        "pair_split_captured",
        ("pairs", "paper", "headroom_captured"),
        True,
    ),
    (
        "held-out experts: share of the honest oracle's gain",
        "held_out_experts_captured",
        ("held_out", "paper", "experts", "headroom_captured"),
        True,
    ),
    (
        "three-way: utility above expert last with the best fixed operator",
        None,
        ("plans", "paper", "3", "gain_over_expert_last_best_fixed", "simmerge"),
        True,
    ),
    (
        "three-way: learned order above random order, GapClosed points",
        "learned_order_gap_points",
        ("plans", "paper", "3", "points_over", "random_order"),
        True,
    ),
    (
        "both tasks: GapClosed points above the paper's best fixed operator",
        "extended_over_paper_fixed_gap_points",
        ("actions", "points", "pairs", "wide", "paper"),
        True,
    ),
    (
        "both tasks: points above the best fixed extended action",
        "extended_over_extended_fixed_gap_points",
        ("actions", "points", "pairs", "wide", "extended"),
        True,
    ),
    (
        "both tasks: points above the best fixed action of the wide set itself",
        "extended_over_extended_fixed_gap_points",
        ("actions", "points", "pairs", "wide", "wide"),
        True,
    ),
    (
        "both tasks, held-out experts: points above the best fixed extended action",
        "extended_held_out_gap_points",
        ("actions", "points", "held_out_experts", "wide", "extended"),
        True,
    ),
    (
        "both tasks, held-out experts: points above the best fixed action of the wide set itself",
        "extended_held_out_gap_points",
        ("actions", "points", "held_out_experts", "wide", "wide"),
        True,
    ),
    (
        "MIN-GapClosed: points above the wide set's best fixed action",
        None,
        ("actions", "wide", "minimum", "points_over_best_fixed", "simmerge"),
        True,
    ),
    (
        "larger models without retraining: share of the honest oracle's gain",
        "transfer_captured",
        ("transfer", "paper", "headroom_captured"),
        False,
    ),
)
"""Name, key in the protocol (None: above zero), place of the figure, and whether its interval must be above zero."""


def bars(results: Mapping[str, Result], protocol: Protocol) -> list[Bar]:
    """Every bar with the figure that was reached."""
    found = []
    for name, key, place, above in _PLACES:
        figure: Any = results[place[0]].figures if place[0] in results else None
        for part in place[1:]:
            figure = figure.get(part) if isinstance(figure, Mapping) else None
        found.append(Bar(name, protocol.bars[key] if key else 0.0, figure, above))
    return found
