"""Calibrated intervals: the errors of out-of-fold predictions say how far a new merge may lie from its prediction.

Where new merges are exchangeable with the labelled ones, an interval (`conformal`) holds a merge's measured score with
at least the level's probability, on average over merges; not for every single merge, and not for checkpoints of
another kind. Two things make the intervals err on the wide side: each error is that of the one network that held the
pair out, while predictions are the mean of all networks; and the ensemble's spread at a labelled merge is that of
networks most of which fitted it. One makes them err on the narrow side: that network stopped early on the pairs that
it held out. `coverage.interval_coverage` measures what comes of it on pairs that nothing was fitted to.

A pair with a checkpoint that no label holds is not exchangeable with pairs of labelled ones: it is predicted worse. Its
intervals come from networks that held out every pair of a fold of checkpoints. They are of one width: the spread of an
ensemble that fitted a checkpoint says nothing about its spread on one that it did not fit. Merges of one checkpoint err
together, so the level holds on average over checkpoints, and few of them make a wide average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simmerge_core.selector.conformal import Band
from simmerge_core.selector.prediction_errors import difference_errors, prediction_errors
from simmerge_core.selector.rows import TrainingRows


@dataclass(frozen=True)
class Calibration:
    """What turns a selector's predictions into intervals.

    Attributes
    ----------
    level
        Coverage that was asked for.
    actions
        One band per action: for the predictions of one row.
    chosen
        For the action with the highest prediction, which is more often too high than an action named beforehand.
    differences
        By `prediction_errors.DIFFERENCES`: for the chosen actions of two pairs on one task, and (``same_pair``) for the
        chosen and another action of one pair. A kind is missing where too few such couples were held out by one network
        to promise the level.
    """

    level: float
    actions: tuple[Band, ...]
    chosen: Band
    differences: Mapping[str, Band]

    def half_width(self, spread: np.ndarray) -> np.ndarray:
        """(…, actions) half-widths of the intervals of predictions whose ensemble deviates by `spread`."""
        return np.stack([band.half_width(spread[..., i]) for i, band in enumerate(self.actions)], axis=-1)

    def difference_half_width(
        self, kind: str, spread: np.ndarray, first: np.ndarray | float, second: np.ndarray | float
    ) -> np.ndarray:
        """Half-widths of the difference of two predictions on one task.

        Parameters
        ----------
        kind
            One of `prediction_errors.DIFFERENCES`.
        spread
            The ensemble's standard deviation of the difference, network by network: what they err in alike cancels.
        first, second
            Half-widths of both predictions; their sum stands in where the kind could not be calibrated.
        """
        if kind in self.differences:
            return self.differences[kind].half_width(spread)
        return np.asarray(np.zeros_like(spread) + first + second)

    @property
    def promised(self) -> float:
        """The level that so many labelled merges can promise: below `level` where there are few."""
        return self.chosen.level

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready mapping; numbers come back exactly."""
        return {
            "level": self.level,
            "actions": [asdict(band) for band in self.actions],
            "chosen": asdict(self.chosen),
            "differences": {kind: asdict(band) for kind, band in self.differences.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """The inverse of `as_json`."""
        return cls(
            level=value["level"],
            actions=tuple(Band(**band) for band in value["actions"]),
            chosen=Band(**value["chosen"]),
            differences={kind: Band(**band) for kind, band in value["differences"].items()},
        )


def calibrate(
    rows: TrainingRows, members: np.ndarray, folds: np.ndarray, *, level: float, adaptive: bool = True
) -> Calibration:
    """Calibrate an ensemble on the rows that it was trained on.

    Parameters
    ----------
    rows
        n rows; both orientations of a pair and all its tasks lie in one fold. Where two networks held a merge out, it
        is there once for each and counts half each time.
    members
        (members, n, actions) predictions of each network for every row.
    folds
        (n,) the network that held the row out: only its prediction of the row counts. Two pairs are compared where one
        network held both out, since then their errors have in common what those of two predictions have.
    adaptive
        Whether half-widths follow the ensemble's spread.
    """
    predicted = members[folds, np.arange(len(rows))]
    *actions, chosen = (
        Band.fit(errors, level=level, adaptive=adaptive) for errors in prediction_errors(rows, predicted, members)
    )
    found = difference_errors(rows, predicted, members, folds)
    differences = {kind: Band.fit(errors, level=level, adaptive=adaptive) for kind, errors in found.items()}
    enough = {kind: band for kind, band in differences.items() if band.level >= level}
    return Calibration(level, tuple(actions), chosen, enough)
