"""How often the calibrated intervals hold what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simmerge_core.errors import SelectionError
from simmerge_core.selector.conformal import Band
from simmerge_core.selector.prediction_errors import difference_errors, prediction_errors
from simmerge_core.selector.rows import TrainingRows

if TYPE_CHECKING:
    from simmerge_core.selector.mlp import Selector


def out_of_fold_coverage(
    rows: TrainingRows, members: np.ndarray, folds: np.ndarray, *, level: float
) -> dict[str, float]:
    """Coverage of labelled merges by the intervals that the other folds' errors give.

    Parameters
    ----------
    rows, members, folds, level
        As in `calibration.calibrate`.

    Returns
    -------
    dict
        ``every_action``, ``chosen_action``: shares of merges inside their intervals, each merge counted once;
        ``mean_half_width`` over every action.
    """
    predicted = members[folds, np.arange(len(rows))]
    inside = np.zeros((len(rows), predicted.shape[1] + 1))
    width = np.zeros_like(inside)
    weight = np.zeros(len(rows))
    for fold in np.unique(folds):
        here = folds == fold
        known = prediction_errors(rows.filter(~here), predicted[~here], members[:, ~here])
        asked = prediction_errors(rows.filter(here), predicted[here], members[:, here])
        for column, (others, these) in enumerate(zip(known, asked, strict=True)):
            width[here, column] = Band.fit(others, level=level).half_width(these.spread)
            inside[here, column] = np.abs(these.error) <= width[here, column]
            weight[here] = these.weight
    return {
        "every_action": _share(inside[:, :-1].mean(axis=1), weight),
        "chosen_action": _share(inside[:, -1], weight),
        "mean_half_width": _share(width[:, :-1].mean(axis=1), weight),
    }


def interval_coverage(selector: Selector, rows: TrainingRows) -> dict[str, Any]:
    """Coverage on rows that the selector was not trained on, such as those of split ``test``.

    Returns
    -------
    dict
        ``level``, ``merges``, ``every_action`` and ``chosen_action`` (shares of merges inside their intervals, each
        merge counted once), ``mean_half_width``, ``by_task`` (every action), and ``differences`` by kind.

    Raises
    ------
    SelectionError
        If there is no row, or the rows have other actions than the selector.
    """
    if not len(rows) or rows.actions != selector.actions:
        raise SelectionError(
            f"Coverage is measured on labelled pairs under {[str(a) for a in selector.actions]}, not on {len(rows)} "
            f"rows under {[str(a) for a in rows.actions]}: give rows of the test split with the selector's actions."
        )
    prediction, calibration = selector.predict(rows.features), selector.calibration
    members = prediction.members
    assert members is not None
    chosen = prediction_errors(rows, prediction.utilities, members)[-1]
    width = calibration.half_width(prediction.uncertainty)
    inside = (np.abs(rows.utilities - prediction.utilities) <= width).mean(axis=1)
    tasks, weight = rows.meta["task"].to_numpy().astype(str), chosen.weight
    differences = difference_errors(rows, prediction.utilities, members, np.zeros(len(rows), dtype=np.int64))
    return {
        "level": calibration.level,
        "merges": round(float(weight.sum())),
        "every_action": _share(inside, weight),
        "chosen_action": _share(np.abs(chosen.error) <= calibration.chosen.half_width(chosen.spread), weight),
        "mean_half_width": _share(width.mean(axis=1), weight),
        "by_task": {t: _share(inside[tasks == t], weight[tasks == t]) for t in sorted(set(tasks.tolist()))},
        "differences": {
            kind: _share(np.abs(e.error) <= calibration.differences[kind].half_width(e.spread), e.weight)
            for kind, e in differences.items()
            if kind in calibration.differences
        },
    }


def _share(values: np.ndarray, weight: np.ndarray) -> float:
    return float(np.sum(values * weight) / np.sum(weight))
