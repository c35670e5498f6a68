"""Intervals for checkpoints that no label holds: calibrated on networks that held checkpoints out, used where due."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from selector_world import make_world

from simmerge_core.errors import SelectionError
from simmerge_core.planning import explain_plan, search
from simmerge_core.selector import (
    Selector,
    SelectorConfig,
    TrainingRows,
    checkpoint_folds,
    checkpoint_split,
    explain,
    interval_coverage,
    train,
    training_rows,
)
from simmerge_core.selector.calibration import calibrate
from simmerge_core.selector.splits import held_out_checkpoints

ACTIONS = ("linear@0.5", "slerp@0.3", "slerp@0.7", "ties@0.5")
QUICK = SelectorConfig(widths=(32,), learning_rates=(6e-3,), dropouts=(0.1,), members=5, epochs=30)
EFFECT = 0.1


@pytest.fixture(scope="module")
def rows() -> TrainingRows:
    """Rows in which each checkpoint adds an amount of its own that its features say nothing about."""
    world = make_world(per_domain=7, noise=0.02, actions=ACTIONS, tasks=("math", "code", "rag", "chat"))
    rng = np.random.default_rng(7)
    effect = {c: float(rng.normal(0.0, EFFECT)) for c in sorted(world.domains)}
    added = pl.col("a").replace_strict(effect) + pl.col("b").replace_strict(effect)
    labels = world.labels.with_columns(pl.col("utility") + added)
    return training_rows(world.features, labels, actions=world.actions)


@pytest.fixture(scope="module")
def held_out(rows: TrainingRows) -> list[tuple[Selector, TrainingRows]]:
    """Selectors that know three quarters of the checkpoints each, and the rows that touch the others."""
    found = []
    for fold in checkpoint_folds(rows.meta, 4):
        split = rows.with_split(checkpoint_split(rows.meta, fold))
        found.append((train(split, config=QUICK, seed=0), split.of_split("test")))
    return found


def test_unseen_checkpoints_are_covered_where_pair_calibration_falls_short(
    held_out: list[tuple[Selector, TrainingRows]],
) -> None:
    found = [(interval_coverage(selector, test), selector, test) for selector, test in held_out]
    merges = np.array([ours["merges"] for ours, _, _ in found])
    for kind in ("every_action", "chosen_action"):
        ours = np.array([measured[kind] for measured, _, _ in found])
        pairs = [
            interval_coverage(replace(selector, unseen_calibration=selector.calibration), test)[kind]
            for _, selector, test in found
        ]
        # Merges of one checkpoint err together: the folds say by how much their mean may be off.
        slack = 3.0 * float(ours.std(ddof=1)) / math.sqrt(len(ours))
        assert np.average(ours, weights=merges) > 0.9 - max(slack, 3.0 * math.sqrt(0.09 / merges.sum()))
        assert np.average(pairs, weights=merges) < 0.8
        assert np.average(ours, weights=merges) > 0.85
    for selector, _ in held_out:
        measured = selector.metrics["interval_coverage"]["unseen"]
        assert measured["folds"] == 5
        assert measured["every_action"] == pytest.approx(0.9, abs=0.05)
        assert measured["mean_half_width"] > selector.metrics["interval_coverage"]["mean_half_width"]


def test_the_ensemble_does_not_depend_on_it(rows: TrainingRows, tmp_path: Path) -> None:
    quick = replace(QUICK, epochs=4, tuning_members=1, widths=(8, 16))
    saved = [train(rows, config=replace(quick, unseen_folds=f)).save(tmp_path / str(f)) for f in (0, 5)]
    weights = [(folder / "selector.safetensors").read_bytes() for folder in saved]
    assert weights[0] == weights[1]
    without, with_them = map(Selector.load, saved)
    assert without.calibration == with_them.calibration == without.unseen_calibration
    assert with_them.unseen_calibration != with_them.calibration
    assert without.metrics["interval_coverage"]["unseen"] == {"folds": 0}


def test_save_and_load(held_out: list[tuple[Selector, TrainingRows]], rows: TrainingRows, tmp_path: Path) -> None:
    selector, _ = held_out[0]
    again = Selector.load(selector.save(tmp_path / "selector"))
    assert again.unseen_calibration == selector.unseen_calibration
    assert again.checkpoints == selector.checkpoints == tuple(sorted(again.checkpoints))
    assert again.key == selector.key
    np.testing.assert_array_equal(again.predict(rows.features).half_width, selector.predict(rows.features).half_width)
    known = {c for row in rows.meta.to_dicts() for c in (row["a"], row["b"])} - set(checkpoint_folds(rows.meta, 4)[0])
    assert set(again.checkpoints) == known
    assert json.loads((tmp_path / "selector" / "config.json").read_text())["checkpoints"] == sorted(known)


def test_each_row_has_its_own_band(held_out: list[tuple[Selector, TrainingRows]], rows: TrainingRows) -> None:
    selector, _ = held_out[0]
    answer = selector.predict(rows.features)
    assert answer.half_width is not None
    seen = 0
    for i, (a, b) in enumerate(rows.meta.select("a", "b").iter_rows()):
        known = a in selector.checkpoints and b in selector.checkpoints
        seen += known
        for column in range(len(ACTIONS)):
            band = (selector.calibration if known else selector.unseen_calibration).actions[column]
            spread = answer.uncertainty[i, column] if known else 0.0
            assert answer.half_width[i, column] == pytest.approx(band.quantile * math.hypot(band.floor, spread))
    assert 0 < seen < len(rows)
    # Coverage by hand: every row inside its own band, both orientations of a merge half each.
    inside = np.abs(rows.utilities - answer.utilities) <= answer.half_width
    assert interval_coverage(selector, rows)["every_action"] == pytest.approx(inside.mean())


def test_plans_and_explanations(held_out: list[tuple[Selector, TrainingRows]], rows: TrainingRows) -> None:
    selector, _ = held_out[0]
    new = next(c for c in checkpoint_folds(rows.meta, 4)[0] if not c.startswith("math"))
    ids = ["math-00", "math-01", "math-02", "math-03", "code-00", "code-01", new]
    ids = [c for c in ids if c == new or c in selector.checkpoints]
    world = make_world(per_domain=7, noise=0.02, actions=ACTIONS, tasks=("math", "code", "rag", "chat"))
    found = search(selector, world.features, ids, "math", k=2, top=50).to_dicts()
    first = found[0]
    assert {new in row["order"] for row in found} == {True, False}
    for row in found:
        half = (row["high"] - row["low"]) / 2
        unseen = selector.unseen_calibration
        if new in row["order"]:
            assert half == pytest.approx(unseen.chosen.quantile * unseen.chosen.floor)
        else:
            assert half >= selector.calibration.chosen.quantile * selector.calibration.chosen.floor - 1e-12
            assert half != pytest.approx(unseen.chosen.quantile * unseen.chosen.floor)
        if row is not first and (new in row["order"] or new in first["order"]):
            shared = set(row["order"]) & set(first["order"])
            band = unseen.differences["shared_checkpoint" if shared else "no_shared_checkpoint"]
            width = (row["difference_high"] - row["difference_low"]) / 2
            assert width == pytest.approx(band.quantile * band.floor)
    merge = next(row for row in found if new in row["order"])
    (step,) = explain_plan(selector, world.features, merge["order"], merge["actions"], "math")
    band = selector.unseen_calibration.differences["same_pair"]
    assert step.half_width == pytest.approx(band.quantile * band.floor)
    row = world.features.filter((pl.col("a") == new) & (pl.col("b") == "math-00") & (pl.col("task") == "math"))
    assert explain(selector, row).half_width == pytest.approx(band.quantile * band.floor)


def test_folds_hold_out_every_row_of_their_checkpoints(rows: TrainingRows) -> None:
    touched = held_out_checkpoints(rows.meta, 5, least_pairs=8)
    for mask, fold in zip(touched, checkpoint_folds(rows.meta, 5), strict=True):
        assert mask.tolist() == [a in fold or b in fold for a, b in rows.meta.select("a", "b").iter_rows()]


def test_a_merge_of_two_folds_counts_half_with_each_network(rows: TrainingRows) -> None:
    """Its errors by both networks, against a loop; a constant band is the quantile of their sizes."""
    rng = np.random.default_rng(0)
    touched = held_out_checkpoints(rows.meta, 3, least_pairs=8)
    networks = rows.utilities + rng.normal(0.0, 0.05, (3, *rows.utilities.shape))
    fold, at = np.nonzero(touched)
    found = calibrate(rows.take(at), networks[:, at], fold, level=0.9, adaptive=False)
    per_merge: dict[tuple[str, str, str], list[float]] = {}
    for i, (a, b, task) in enumerate(rows.meta.select("a", "b", "task").iter_rows()):
        for f in range(3):
            if touched[f, i]:
                key = (min(a, b), max(a, b), task)
                per_merge.setdefault(key, []).append(abs(rows.utilities[i, 0] - networks[f, i, 0]))
    assert {len(errors) for errors in per_merge.values()} == {2, 4}  # orientations × networks
    weighed = sorted((e, 1.0 / len(errors)) for errors in per_merge.values() for e in errors)
    below = np.cumsum([weight for _, weight in weighed])
    expected = weighed[int(np.argmax(below >= 0.9 * (1 + len(per_merge)) - 1e-9))][0]
    np.testing.assert_allclose(found.actions[0].half_width(np.array([0.0, 3.0])), expected)
    assert found.chosen.merges == found.differences["same_pair"].merges == len(per_merge)


def test_too_few_checkpoints_fall_back_to_the_seen_bands(rows: TrainingRows) -> None:
    few = rows.filter(rows.meta["a"].str.ends_with("-00") & rows.meta["b"].str.ends_with("-00"))
    assert len(held_out_checkpoints(few.meta, 5, least_pairs=1)) == 2  # four checkpoints
    assert len(held_out_checkpoints(few.meta, 5, least_pairs=2)) == 0
    assert len(held_out_checkpoints(few.meta[:2], 5, least_pairs=0)) == 0
    ends = ("-00", "-01")
    ids = [c for c in {*rows.meta["a"], *rows.meta["b"]} if c.endswith(ends) and not c.startswith("chat")]
    small = rows.filter(rows.meta["a"].is_in(ids) & rows.meta["b"].is_in(ids))
    small = small.with_split(["train"] * len(small))
    selector = train(small, config=replace(QUICK, members=2, epochs=2))
    assert selector.unseen_calibration == selector.calibration
    assert selector.metrics["interval_coverage"]["unseen"] == {"folds": 0}


def test_one_fold_is_none() -> None:
    with pytest.raises(SelectionError, match="unseen_folds is 1"):
        SelectorConfig(unseen_folds=1)
