"""Choosing among operators for pairs (§4.1): Fig. 2, 3, 9, 12 and Tables 1 and 4, with noise and every rival."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis.predictions import predict_parts
from simmerge_core.analysis.protocol import Direction, tied_best
from simmerge_core.analysis.units import Target, Units
from simmerge_core.experiments.comparison import SIMMERGE, compare, predictions, rivals_for
from simmerge_core.experiments.data import ExperimentData, Progress, part_of
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.protocol import protocol
from simmerge_core.experiments.result import Result
from simmerge_core.selector import TrainingRows

TARGETS: dict[str, Target] = {"paper": protocol().actions.paper, "extended": protocol().actions.extended}
"""What each action set is judged by."""


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """Both action sets on the test pairs; for the paper's also a selector without the task code (App. F.1)."""
    data = catalogs.full
    figures: dict[str, Any] = {}
    frames = []
    for number, (name, target) in enumerate(TARGETS.items()):
        units = data.units(name, target)
        rows = {d: data.rows(units.actions, d) for d in data.along}

        tell = part_of(progress, f"{name} actions", number, len(TARGETS))
        parts = predictions(data, units, rows, [SIMMERGE, *rivals_for(units)], tell)
        if name == "paper":
            parts["without_task_code"] = _without_code(data, units, rows)
        section, raw, _ = compare(data, units, parts)
        section["wins"] = _wins(data, units)
        section["lead"] = _lead(section)
        if name == "paper":
            without, _, _ = compare(data, units, {SIMMERGE: parts["without_task_code"]})
            section["without_task_code"] = {k: without[k] for k in ("confusion", "accuracy", "headroom_captured")}
        figures[name] = section
        frames.append(raw.with_columns(pl.lit(name).alias("actions")))
    return Result(pl.concat(frames), figures)


def _without_code(
    data: ExperimentData, units: Units, rows: Mapping[Direction, TrainingRows]
) -> dict[Direction, np.ndarray]:
    config = replace(data.settings, encode_task=False)
    data.train_ahead([(r, config) for r in rows.values()])
    return {d: predict_parts(data.selector(r, config=config), data.features, units) for d, r in rows.items()}


def _lead(section: dict[str, Any]) -> dict[str, Any]:
    """The selector's gain over the strongest of all baselines that choose an action, with the baseline's name.

    Parents and the base are no such baselines: they are reported beside the choices (ARCHITECTURE.md, "What a choice is
    judged by").
    """
    references = ("parent_expert", "parent_auxiliary", "keep_better_parent", "base", "oracle", "oracle_same_items")
    own = ("without_task_code",)  # a selector too
    rivals = {m: g for m, g in section["gain_over"].items() if m not in (*references, *own)}
    strongest = min(rivals, key=lambda m: rivals[m]["value"])
    return {"method": strongest, **rivals[strongest]}


def _wins(data: ExperimentData, units: Units) -> dict[str, dict[str, float]]:
    """How often each action is best, by split, on the first item set; ties shared (§3.2: 96 / 88 / 56)."""
    best = tied_best(units.utilities[units.item_sets[0]].mean(axis=1))
    return {
        str(split): dict(zip(units.actions, best[units.split == split].sum(axis=0).tolist(), strict=True))
        for split in np.unique(units.split)
    }
