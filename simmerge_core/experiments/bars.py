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
        What was to be reached; 0 asks for more than 0.
    figure
        Value with its interval, None where the experiment was not run.
    unit
        ``share`` of the honest oracle's gain, ``points`` of GapClosed, or ``utility``.
    above_zero
        Whether the interval has to lie above zero as well.
    """

    name: str
    least: float
    figure: Mapping[str, Any] | None
    unit: str = "share"
    above_zero: bool = False

    @property
    def met(self) -> bool | None:
        """None where the figure is missing."""
        if self.figure is None or self.figure["value"] is None:
            return None
        low = self.figure["ci95"][0]
        clear = not self.above_zero or (low is not None and low > 0)
        reached = self.figure["value"] >= self.least if self.least else self.figure["value"] > 0
        return bool(reached and clear)


_SEVEN = "both tasks: GapClosed of choices among seven actions"
_WIDE = "both tasks: GapClosed of choices among 26 actions"
_LEAST = "the worse of both tasks: MIN-GapClosed of choices for it above the best fixed of"
_PLACES: tuple[tuple[str, str | None, tuple[str, ...], str, bool], ...] = (
    ("pair split", "pair_split_captured", ("pairs", "paper", "headroom_captured"), "share", True),
    ("pair split: above the strongest baseline", None, ("pairs", "paper", "lead"), "utility", False),
    (
        "pair split: above evaluating the two best on average of three",
        None,
        ("budgets", "paper", "gain_of_predicting", "best on average, evaluate 2"),
        "utility",
        False,
    ),
    (
        "seven actions, both tasks: above the strongest baseline",
        None,
        ("pairs", "extended", "lead"),
        "utility",
        False,
    ),
    (
        "held-out experts",
        "held_out_experts_captured",
        ("held_out", "paper", "experts", "headroom_captured"),
        "share",
        True,
    ),
    (
        "three-way: above expert last with the best fixed operator",
        None,
        ("plans", "paper", "3", "gain_over_expert_last_best_fixed", "simmerge"),
        "utility",
        True,
    ),
    (
        "three-way: learned order above random order",
        "learned_order_gap_points",
        ("plans", "paper", "3", "points_over", "random_order"),
        "points",
        True,
    ),
    (
        f"{_SEVEN} above the paper's best fixed operator",
        "extended_over_paper_fixed_gap_points",
        ("actions", "points", "pairs", "extended", "paper"),
        "points",
        True,
    ),
    (
        f"{_SEVEN} above the best fixed of the seven",
        "extended_over_extended_fixed_gap_points",
        ("actions", "points", "pairs", "extended", "extended"),
        "points",
        True,
    ),
    (
        f"{_SEVEN} above the best fixed of the seven, held-out experts",
        "extended_held_out_gap_points",
        ("actions", "points", "held_out_experts", "extended", "extended"),
        "points",
        True,
    ),
    (
        f"{_WIDE} above the paper's best fixed operator",
        "extended_over_paper_fixed_gap_points",
        ("actions", "points", "pairs", "wide", "paper"),
        "points",
        True,
    ),
    (
        f"{_WIDE} above the best fixed of the seven",
        "extended_over_extended_fixed_gap_points",
        ("actions", "points", "pairs", "wide", "extended"),
        "points",
        True,
    ),
    (
        f"{_WIDE} above the best fixed of the 26",
        "extended_over_extended_fixed_gap_points",
        ("actions", "points", "pairs", "wide", "wide"),
        "points",
        True,
    ),
    (
        f"{_WIDE} above the best fixed of the seven, held-out experts",
        "extended_held_out_gap_points",
        ("actions", "points", "held_out_experts", "wide", "extended"),
        "points",
        True,
    ),
    (
        f"{_WIDE} above the best fixed of the 26, held-out experts",
        "extended_held_out_gap_points",
        ("actions", "points", "held_out_experts", "wide", "wide"),
        "points",
        True,
    ),
    (
        f"{_LEAST} the seven",
        None,
        ("actions", "extended", "minimum", "points_over_best_fixed", "simmerge"),
        "points",
        True,
    ),
    (
        f"{_LEAST} the 26",
        None,
        ("actions", "wide", "minimum", "points_over_best_fixed", "simmerge"),
        "points",
        True,
    ),
    (
        f"{_LEAST} the 26, held-out experts",
        None,
        ("actions", "wide", "held_out_experts", "minimum", "points_over_best_fixed", "simmerge"),
        "points",
        True,
    ),
    (
        "larger models without retraining",
        "transfer_captured",
        ("transfer", "paper", "headroom_captured"),
        "share",
        False,
    ),
)
"""Name, key in the protocol (None: above zero), place of the figure, unit, and whether its interval must be above 0."""


def bars(results: Mapping[str, Result], protocol: Protocol) -> list[Bar]:
    """Every bar with the figure that was reached."""
    found = []
    for name, key, place, unit, above in _PLACES:
        figure: Any = results[place[0]].figures if place[0] in results else None
        for part in place[1:]:
            figure = figure.get(part) if isinstance(figure, Mapping) else None
        found.append(Bar(name, protocol.bars[key] if key else 0.0, figure, unit, above))
    return found
