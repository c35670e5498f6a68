"""How plans are scored (§2.3.2, App. D): propagation, aggregation over steps, orientation, joint operators, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis import multiway
from simmerge_core.analysis.bootstrap import cluster_weights, interval, weighted_mean
from simmerge_core.analysis.gaps import Gaps
from simmerge_core.analysis.protocol import Direction
from simmerge_core.analysis.reporting import plan_chooser
from simmerge_core.experiments.data import ExperimentData, Progress, part_of
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.plans import executed, remembered
from simmerge_core.experiments.result import Result
from simmerge_core.selector import TrainingRows

DEFAULT = "default"


@dataclass(frozen=True)
class Scoring:
    """One way to score plans.

    Attributes
    ----------
    options
        Of `planning.search`, where they differ from its defaults.
    auxiliaries
        Whether labels of auxiliary-auxiliary pairs are learned from.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    auxiliaries: bool = True


SCORINGS = (
    Scoring(DEFAULT),
    Scoring("exact weight features (Gram matrix)", {"propagation": "gram"}),
    Scoring("mean over steps", {"aggregate": "mean"}),
    Scoring("steps as ordered", {"orientation": "as_ordered"}),
    Scoring("both orientations", {"orientation": "both"}),
    Scoring("all operator sequences", {"operators": "joint"}),
    Scoring("exact, all operator sequences", {"propagation": "gram", "operators": "joint"}),
    Scoring("no auxiliary-auxiliary labels", auxiliaries=False),
)
"""The mean ranks plans of one length as the sum does."""


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """Paper's actions, three and four checkpoints, on the task of each configuration."""
    data = catalogs.full
    units = data.units("paper", "expert_task")
    rows = {d: data.rows(units.actions, d) for d in data.along}
    fewer = {d: _without_auxiliaries(r) for d, r in rows.items()}
    data.train_ahead([(r, None) for r in (*rows.values(), *fewer.values())], part_of(progress, "training", 0, 3))
    choosers = {
        (s.name, d): remembered(
            plan_chooser(data.selector((rows if s.auxiliaries else fewer)[d]), data.features, **s.options)
        )
        for s in SCORINGS
        for d in data.along
    }
    every = list(choosers.values())
    found = executed(
        data, every, [units.actions[0]] * len(every), part_of(progress, "executing", 1, 3), baselines=False
    )
    figures: dict[str, Any] = {}
    records = []
    for number, k in enumerate(sorted({c.k for c in found})):
        progress(f"k = {k}", (2 + number / 2) / 3)
        here = [c for c in found if c.k == k]
        figures[str(k)], raw = _scored(data, here, choosers)
        records += raw
    names = ["scoring", "direction", "k", "task", "expert", "auxiliaries", "plan", "utility"]
    return Result(
        pl.DataFrame(records, schema=names, orient="row").with_columns(pl.col("utility").cast(pl.Float32)), figures
    )


def _without_auxiliaries(rows: TrainingRows) -> TrainingRows:
    return rows.filter(rows.meta["kind"] == "expert_auxiliary")


def _scored(
    data: ExperimentData,
    found: Sequence[multiway.Configuration],
    choosers: Mapping[tuple[str, Direction], multiway.Chooser],
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    values: dict[str, list[float]] = {s.name: [] for s in SCORINGS}
    references, records = [], []
    for direction in data.along:
        for c in found:
            plans = {s.name: choosers[s.name, direction](c.target, c.members).plan for s in SCORINGS}
            tables = {name: c.utilities.get(multiway.canonical(plan)) for name, plan in plans.items()}
            ends = multiway.references(c, data.alone, direction.scored_on)
            if ends is None or any(t is None or direction.scored_on not in t for t in tables.values()):
                continue
            references.append((c.task, c.expert, *ends))
            for name, table in tables.items():
                assert table is not None
                values[name].append(table[direction.scored_on])
                about = (name, str(direction), c.k, c.task, c.expert, "+".join(c.auxiliaries), str(plans[name]))
                records.append((*about, table[direction.scored_on]))
    noise = data.protocol.noise
    tasks, experts, high, low = (np.array(column) for column in zip(*references, strict=True))
    weights = cluster_weights(experts[:, None], draws=noise.draws, seed=noise.seed)
    gaps = Gaps(tasks[:, None], high[:, None], low[:, None], data.protocol.choices.min_gap)
    utilities = {name: np.array(column) for name, column in values.items()}
    default = utilities[DEFAULT]
    return {
        "configurations": len(found),
        "utility": {n: interval(weighted_mean(v), weights).as_dict() for n, v in utilities.items()},
        "gap_closed": {n: interval(gaps.macro(v[:, None]), weights).as_dict() for n, v in utilities.items()},
        "gain_over_default": {
            n: interval(weighted_mean(v - default), weights).as_dict() for n, v in utilities.items() if n != DEFAULT
        },
    }, records
