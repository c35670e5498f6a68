"""How often the calibrated intervals hold what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simmerge_core.errors import SelectionError
from simmerge_core.selector.conformal import Band
from simmerge_core.selector.prediction_errors import (
    Errors,
    difference_errors,
    merge_ids,
    merge_weights,
    prediction_errors,
)
from simmerge_core.selector.rows import TrainingRows

if TYPE_CHECKING:
    from simmerge_core.selector.mlp import Selector


def out_of_fold_coverage(
    rows: TrainingRows, members: np.ndarray, folds: np.ndarray, *, level: float, adaptive: bool = True
) -> dict[str, float]:
    """Coverage of labelled merges by the intervals that the other folds' errors give.

    Parameters
    ----------
    rows, members, folds, level, adaptive
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
    weight, merges = merge_weights(rows.meta), merge_ids(rows.meta)
    for fold in np.unique(folds):
        here = folds == fold
        others = ~np.isin(merges, merges[here])  # a merge that two networks held out is in two folds
        known = prediction_errors(rows.filter(others), predicted[others], members[:, others])
        asked = prediction_errors(rows.filter(here), predicted[here], members[:, here])
        for column, (errors, these) in enumerate(zip(known, asked, strict=True)):
            width[here, column] = Band.fit(errors, level=level, adaptive=adaptive).half_width(these.spread)
            inside[here, column] = np.abs(these.error) <= width[here, column]
    return {
        "every_action": _share(inside[:, :-1].mean(axis=1), weight),
        "chosen_action": _share(inside[:, -1], weight),
        "mean_half_width": _share(width[:, :-1].mean(axis=1), weight),
    }


def interval_coverage(selector: Selector, rows: TrainingRows) -> dict[str, Any]:
    """Coverage on rows that the selector was not trained on, such as those of split ``test``.

    Rows with a checkpoint that the selector has no labels of, and differences with such a row on either side, count
    with the intervals for these.

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
    members, width, unseen = prediction.members, prediction.half_width, selector.holds_unseen(rows.features)
    assert members is not None
    assert width is not None

    def share(errors: Errors, seen: Band, new: Band) -> float:
        half = np.where(unseen[errors.rows].any(axis=1), new.half_width(errors.spread), seen.half_width(errors.spread))
        return _share(np.abs(errors.error) <= half, errors.weight)

    chosen = prediction_errors(rows, prediction.utilities, members)[-1]
    inside = (np.abs(rows.utilities - prediction.utilities) <= width).mean(axis=1)
    tasks, weight = rows.meta["task"].to_numpy().astype(str), chosen.weight
    differences = difference_errors(rows, prediction.utilities, members, np.zeros(len(rows), dtype=np.int64))
    return {
        "level": calibration.level,
        "merges": round(float(weight.sum())),
        "every_action": _share(inside, weight),
        "chosen_action": share(chosen, calibration.chosen, selector.unseen_calibration.chosen),
        "mean_half_width": _share(width.mean(axis=1), weight),
        "by_task": {t: _share(inside[tasks == t], weight[tasks == t]) for t in sorted(set(tasks.tolist()))},
        "differences": {
            kind: share(errors, calibration.differences[kind], selector.unseen_calibration.differences[kind])
            for kind, errors in differences.items()
            if kind in calibration.differences and kind in selector.unseen_calibration.differences
        },
    }


def _share(values: np.ndarray, weight: np.ndarray) -> float:
    return float(np.sum(values * weight) / np.sum(weight))
