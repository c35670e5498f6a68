"""The pairwise comparison as plain figures: Fig. 2, 3, 9, Tables 1 and 4 of the paper, with noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simmerge_core import metrics
from simmerge_core.analysis.bootstrap import DRAWS, cluster_weights, interval, ratio_of_means, weighted_mean
from simmerge_core.analysis.protocol import (
    TRAINING_SPLITS,
    Direction,
    Outcomes,
    best_fixed,
    confusion,
    evaluate,
    macro_class_accuracy,
    tie_share,
    winner_agreement,
)
from simmerge_core.analysis.units import Units
from simmerge_core.operators.actions import parse_action

LEARNED = "simmerge"


def method_name(action: str) -> str:
    """An action's key in a report: the bare operator where it is the plain one at equal weights, else its text."""
    parsed = parse_action(action)
    return parsed.operator if parsed.alpha == 0.5 and not parsed.params else action


def summarise(
    units: Units,
    predictions: Mapping[str, Mapping[Direction, np.ndarray]],
    *,
    along: Sequence[Direction],
    split: str = "test",
    within: float = 0.01,
    min_gap: float = metrics.MIN_GAP,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of one target on one split.

    Parameters
    ----------
    predictions
        Per learned method (``simmerge`` first among them) and direction, (n, m), as `predictions.predict_units` gives
        them.
    along, split, within, min_gap
        As in `protocol.evaluate`.
    draws, seed
        Of the bootstrap.

    Returns
    -------
    dict
        JSON-serialisable; utilities in the unit of the metric, GapClosed and Δ in percent.
    """
    outcomes = evaluate(units, predictions, along=along, split=split, within=within, min_gap=min_gap)
    return {
        "target": units.target,
        "actions": list(units.actions),
        "split": split,
        "directions": [{"chosen_on": d.chosen_on, "scored_on": d.scored_on, "honest": d.honest} for d in along],
        "test_pairs": int((units.split == split).sum()),
        "training_pairs": int(np.isin(units.split, TRAINING_SPLITS).sum()),
        "pairs_by_split": {str(s): int((units.split == s).sum()) for s in np.unique(units.split)},
        "incomplete_pairs": units.incomplete,
        "best_fixed": {str(d): method_name(units.actions[best_fixed(units, d.chosen_on)]) for d in along},
        **figures_of(
            outcomes,
            clusters=clusters_of(units)[outcomes.units],
            learned=list(predictions),
            within=within,
            min_gap=min_gap,
            draws=draws,
            seed=seed,
        ),
    }


def figures_of(
    outcomes: Outcomes,
    *,
    clusters: np.ndarray,
    learned: Sequence[str],
    within: float = 0.01,
    min_gap: float = metrics.MIN_GAP,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Every figure of scored choices.

    Parameters
    ----------
    clusters
        Checkpoints of each row, as `bootstrap.cluster_weights` takes them.
    learned
        Methods whose gain over the best fixed action is given with an interval.
    """
    names = {method: method_name(method) if method in outcomes.actions else method for method in outcomes.utility}
    gap_closed, excluded_tasks = _macro_gap_closed(outcomes, min_gap)
    per_merge, excluded_merges = _gap_closed_per_merge(outcomes, min_gap)
    summary: dict[str, Any] = {
        "utility": {names[k]: _finite(outcomes.mean_utility(k).mean()) for k in outcomes.utility},
        "utility_macro": {names[k]: _finite(_macro(outcomes, v)) for k, v in outcomes.utility.items()},
        "gap_closed": {names[k]: gap_closed[k] for k in outcomes.utility},
        "gap_closed_per_merge": {names[k]: per_merge[k] for k in outcomes.utility},
        "regret": {names[k]: float(v.mean()) for k, v in outcomes.regret.items()},
        "accuracies": {names[k]: float(v.mean()) for k, v in outcomes.hit.items()},
        "within_tolerance": {"tolerance": within, **{names[k]: float(v.mean()) for k, v in outcomes.near.items()}},
        "guard": {"min_gap": min_gap, "excluded_tasks": excluded_tasks, "excluded_merges": excluded_merges},
        "tie_share": tie_share(outcomes),
        "winner_agreement": winner_agreement(outcomes),
        "per_task": _per_task(outcomes, names, min_gap),
    }
    if outcomes.tasks.shape[1] > 1:
        summary["min_gap_closed"] = {names[k]: _finite(_nanmean(v)) for k, v in outcomes.worst_gap.items()}
    weights = cluster_weights(clusters, draws=draws, seed=seed)
    summary |= _gains(outcomes, names, weights, learned)
    if LEARNED in outcomes.choice:
        matrix = confusion(outcomes, LEARNED)
        summary["accuracy"] = summary["accuracies"][LEARNED]
        summary["headroom_captured"] = interval(_captured(outcomes, LEARNED), weights).as_dict()
        summary["confusion"] = {"actions": [names[a] for a in outcomes.actions], "matrix": matrix.tolist()}
        summary["macro_class_accuracy"] = macro_class_accuracy(matrix)
    return summary


def clusters_of(units: Units) -> np.ndarray:
    """Checkpoints whose dependence a unit carries: its expert, or both parents where each is expert on one task."""
    return units.a[:, None] if units.target == "expert_task" else np.stack([units.a, units.b], axis=1)


def _captured(outcomes: Outcomes, method: str) -> Any:
    base = outcomes.mean_utility("best_fixed")
    return ratio_of_means(outcomes.mean_utility(method) - base, outcomes.mean_utility("oracle") - base)


def _gains(outcomes: Outcomes, names: Mapping[str, str], weights: np.ndarray, learned: Sequence[str]) -> dict[str, Any]:
    """Gain in utility of the learned methods and of both oracles over the best fixed action, with intervals."""
    base = outcomes.mean_utility("best_fixed")
    compared = [*learned, "best_fixed_per_task", "random", "oracle"]
    gains = {
        names[k]: interval(weighted_mean(outcomes.mean_utility(k) - base), weights).as_dict()
        for k in dict.fromkeys(compared)
    }
    captured = {names[k]: interval(_captured(outcomes, k), weights).as_dict() for k in learned}
    return {"gain_over_best_fixed": gains, "captured": captured}


def _task_rows(outcomes: Outcomes) -> dict[str, np.ndarray]:
    """Per task, the (row, part) places that were scored on it, as a mask (r, p)."""
    return {str(task): outcomes.tasks == task for task in np.unique(outcomes.tasks)}


def _macro(outcomes: Outcomes, values: np.ndarray) -> float:
    return float(np.mean([values[where].mean() for where in _task_rows(outcomes).values()]))


def _macro_gap_closed(outcomes: Outcomes, min_gap: float) -> tuple[dict[str, float | None], list[str]]:
    """GapClosed of each task's mean scores, macro-averaged over tasks (§3.4; Table 4 follows from Table 1 so)."""
    found: dict[str, list[float]] = {method: [] for method in outcomes.utility}
    excluded = []
    for task, where in _task_rows(outcomes).items():
        expert, auxiliary = float(outcomes.expert[where].mean()), float(outcomes.auxiliary[where].mean())
        if metrics.gap_closed(expert, expert, auxiliary, min_gap=min_gap) is None:
            excluded.append(task)
            continue
        for method, values in outcomes.utility.items():
            closed = metrics.gap_closed(float(values[where].mean()), expert, auxiliary, min_gap=min_gap)
            found[method].append(np.nan if closed is None else closed)
    return {method: _finite(np.mean(values)) if values else None for method, values in found.items()}, excluded


def _gap_closed_per_merge(outcomes: Outcomes, min_gap: float) -> tuple[dict[str, float | None], int]:
    """Mean of the merges' own GapClosed, per task and then over tasks; merges inside the guard are left out."""
    kept = np.abs(outcomes.expert - outcomes.auxiliary) >= min_gap
    result: dict[str, float | None] = {}
    for method, values in outcomes.utility.items():
        each = np.asarray(metrics.gap_closed(values, outcomes.expert, outcomes.auxiliary, min_gap=min_gap))
        tasks = [_nanmean(each[where]) for where in _task_rows(outcomes).values() if kept[where].any()]
        result[method] = _finite(np.mean(tasks)) if tasks else None
    return result, int((~kept).sum())


def _per_task(outcomes: Outcomes, names: Mapping[str, str], min_gap: float) -> dict[str, Any]:
    """Table 1 of the paper: per task and method the mean score, differences and relative changes."""
    tables: dict[str, Any] = {}
    for task, where in _task_rows(outcomes).items():
        expert, auxiliary = float(outcomes.expert[where].mean()), float(outcomes.auxiliary[where].mean())
        methods = {}
        for method, values in outcomes.utility.items():
            mean = float(values[where].mean())
            methods[names[method]] = task_row(mean, expert, auxiliary, min_gap)
        tables[task] = {"rows": int(where.sum()), "expert": expert, "auxiliary": auxiliary, "methods": methods}
    return tables


def task_row(mean: float, expert: float, auxiliary: float, min_gap: float) -> dict[str, float | None]:
    """One line of the paper's Tables 1–3; undefined figures (a baseline of 0, a gap inside the guard) are None."""
    if not np.isfinite(mean):
        return dict.fromkeys(("mean", "diff_expert", "diff_aux", "delta_expert", "delta_aux", "gap_closed"))
    return {
        "mean": mean,
        "diff_expert": mean - expert,
        "diff_aux": mean - auxiliary,
        "delta_expert": metrics.delta_expert(mean, expert),
        "delta_aux": metrics.delta_aux(mean, auxiliary),
        "gap_closed": metrics.gap_closed(mean, expert, auxiliary, min_gap=min_gap),
    }


def _nanmean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None
