"""What is held out is never learned from, whatever the split."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from experiments_world import WorldData

from simmerge_core.experiments.curves import training_sizes
from simmerge_core.experiments.held_out import planned_folds


@pytest.mark.parametrize("target", ["expert_task", "both_tasks"])
def test_held_out_experts_are_in_no_row_that_is_learned_from(data: WorldData, target: str) -> None:
    units = data.units("paper", target)  # type: ignore[arg-type]
    rows = data.rows(units.actions, data.along[0])
    seen: set[str] = set()
    for label, touched, split_of in planned_folds(data, units, rows, "experts"):
        held = label.split(",")
        seen |= set(held)
        learned = rows.with_split(split_of(rows)).of_split("train", "validation").meta
        assert not set(held) & (set(learned["a"]) | set(learned["b"]))
        assert (np.isin(units.a, held) | np.isin(units.b, held) == touched).all()
    assert seen == set(data.catalog.checkpoint_ids)


@pytest.mark.parametrize("target", ["expert_task", "both_tasks"])
def test_a_held_out_domain_is_neither_task_nor_scored_pair_of_what_is_learned_from(
    data: WorldData, target: str
) -> None:
    units = data.units("paper", target)  # type: ignore[arg-type]
    rows = data.rows(units.actions, data.along[0])
    for task, touched, split_of in planned_folds(data, units, rows, "tasks"):
        learned = rows.with_split(split_of(rows)).of_split("train", "validation").meta
        assert task not in set(learned["task"])
        scored = {frozenset(p) for p in zip(units.a[touched].tolist(), units.b[touched].tolist(), strict=True)}
        assert not scored & {frozenset(p) for p in learned.select("a", "b").iter_rows()}


def test_training_sizes_are_nested_and_never_touch_the_test_pairs(data: WorldData) -> None:
    small = data.protocol.model_copy(update={"training_sizes": (20, 40, 10_000), "training_draws": 2})
    units = data.units("paper", "expert_task")
    variants = training_sizes(_with_protocol(data, small), units)
    assert [v.name for v in variants] == [
        "20 pairs, draw 1",
        "20 pairs, draw 2",
        "40 pairs, draw 1",
        "40 pairs, draw 2",
    ]
    direction = data.along[0]
    pairs = []
    for variant in variants:
        assert variant.rows is not None
        meta = variant.rows[direction].meta
        assert "test" not in set(meta["split"])
        experts = meta.filter(pl.col("a_domain") == pl.col("task")).select("a", "b", "task").unique()
        assert experts.height in (int(variant.name.split()[0]), int(variant.name.split()[0]) + 1)
        pairs.append({frozenset(p) for p in meta.select("a", "b").iter_rows()})
    assert pairs[0] < pairs[2]
    assert pairs[1] < pairs[3]
    assert pairs[0] != pairs[1]


def _with_protocol(data: WorldData, protocol: object) -> WorldData:
    from dataclasses import replace

    return replace(data, protocol=protocol)  # type: ignore[type-var]
