"""A wider set of actions: which few carry the headroom, and what choosing among them is worth on both tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis.bootstrap import cluster_weights, interval
from simmerge_core.analysis.gaps import Gaps
from simmerge_core.analysis.pairwise import clusters_of
from simmerge_core.analysis.protocol import Outcomes
from simmerge_core.analysis.units import Units
from simmerge_core.experiments.comparison import SIMMERGE, compare, predictions
from simmerge_core.experiments.data import ExperimentData, Progress, part_of
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.held_out import held_out, held_out_outcomes
from simmerge_core.experiments.result import Result
from simmerge_core.selector.forward_selection import forward_selection, honest_oracle

SELECTED = "selected"
SETS = ("paper", "extended", SELECTED, "wide")


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """Each set on the test pairs and on held-out experts; every set against the best fixed action of every set.

    The selection sees the training pairs on both item sets: which actions to have is decided once, not per direction.
    """
    data = catalogs.full
    wide = data.units("wide", "both_tasks")
    rules = data.protocol.actions.forward_selection
    training = np.isin(wide.split, rules.splits)
    known = {name: values[training].mean(axis=1) for name, values in wide.utilities.items()}
    steps = forward_selection(known, wide.actions, most=rules.most)
    chosen = [action for step in steps for action in step.added]
    figures: dict[str, Any] = {
        "forward_selection": [{"added": list(s.added), "training_utility": s.utility} for s in steps],
        "all_training_utility": honest_oracle(*(known[name] for name in sorted(known))),
    }
    frames, pair, unseen = [], {}, {}
    for number, name in enumerate(SETS):
        units = data.units(chosen if name == SELECTED else name, "both_tasks")

        tell = part_of(progress, name, number, len(SETS))
        rows = {d: data.rows(units.actions, d) for d in data.along}
        section, raw, outcomes = compare(data, units, predictions(data, units, rows, [SIMMERGE], tell))
        pair[name], figures[name] = (units, outcomes), section
        frames.append(raw.with_columns(pl.lit(name).alias("actions"), pl.lit("pairs").alias("split")))
        if name == SELECTED:
            continue  # its actions were chosen with every training pair, those of the held-out experts among them
        held, folds = held_out_outcomes(data, units, "experts", tell, models=())
        unseen[name] = (units, held)
        section["held_out_experts"], rows_of_folds = held_out(data, units, "experts", models=(), outcomes=(held, folds))
        frames.append(
            rows_of_folds.drop("fold").with_columns(
                pl.lit(name).alias("actions"), pl.lit("held_out_experts").alias("split")
            )
        )
    figures["points"] = {"pairs": _against(data, pair), "held_out_experts": _against(data, unseen)}
    return Result(pl.concat(frames), figures)


def _against(data: ExperimentData, found: dict[str, tuple[Units, Outcomes]]) -> dict[str, Any]:
    """GapClosed points of the selector over each set minus the best fixed action of each set, on the same rows."""
    noise = data.protocol.noise
    result: dict[str, Any] = {}
    for name, (units, outcomes) in found.items():
        clusters = clusters_of(units)[outcomes.units]
        weights = cluster_weights(clusters, draws=noise.draws, seed=noise.seed)
        gaps = Gaps(outcomes.tasks, outcomes.expert, outcomes.auxiliary, data.protocol.choices.min_gap)
        result[name] = {}
        for other, (other_units, other_outcomes) in found.items():
            if not (
                np.array_equal(units.a[outcomes.units], other_units.a[other_outcomes.units])
                and np.array_equal(units.b[outcomes.units], other_units.b[other_outcomes.units])
            ):
                continue  # a pair lacks an action of one set: the rows do not match
            statistic = gaps.points(outcomes.utility[SIMMERGE], other_outcomes.utility["best_fixed"])
            result[name][other] = interval(statistic, weights).as_dict()
    return result
