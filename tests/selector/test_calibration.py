"""A trained selector's intervals: how they are made, that they hold, and that they are saved."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from selector_world import World, make_world
from threadpoolctl import threadpool_limits

from simmerge_core.errors import SelectionError
from simmerge_core.selector import (
    MODELS,
    Calibration,
    Selector,
    SelectorConfig,
    TrainingRows,
    interval_coverage,
    train,
    training_rows,
)
from simmerge_core.selector.calibration import calibrate
from simmerge_core.selector.prediction_errors import difference_errors, merge_weights

ACTIONS = ("linear@0.5", "slerp@0.3", "slerp@0.7", "ties@0.5")
QUICK = SelectorConfig(widths=(32,), learning_rates=(6e-3,), dropouts=(0.1,), members=5, epochs=30)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(per_domain=7, noise=0.03, actions=ACTIONS, tasks=("math", "code", "rag", "chat"))


@pytest.fixture(scope="module")
def rows(world: World) -> TrainingRows:
    return training_rows(world.features, world.labels, actions=world.actions)


@pytest.fixture(scope="module")
def selector(rows: TrainingRows) -> Selector:
    return train(rows, config=QUICK, seed=0)


def test_half_width_follows_from_calibration_and_spread(rows: TrainingRows, selector: Selector) -> None:
    answer = selector.predict(rows.features)
    assert answer.half_width is not None
    assert answer.half_width.shape == answer.utilities.shape
    for column, band in enumerate(selector.calibration.actions):
        expected = [band.quantile * math.hypot(band.floor, s) for s in answer.uncertainty[:20, column]]
        np.testing.assert_allclose(answer.half_width[:20, column], expected)
    assert MODELS["ridge"](rows).predict(rows.features).half_width is None
    assert selector.predict(rows.features.clear()).half_width.shape == (0, len(ACTIONS))  # type: ignore[union-attr]


def test_intervals_hold_pairs_that_were_never_fitted(rows: TrainingRows, selector: Selector) -> None:
    test = rows.of_split("test")
    found = interval_coverage(selector, test)
    assert found["merges"] == len(test) / 2
    slack = 4.0 * math.sqrt(0.9 * 0.1 / found["merges"])
    for share in (found["every_action"], found["chosen_action"], *found["differences"].values()):
        assert 0.9 - slack <= share <= min(1.0, 0.95 + slack)
    assert set(found["differences"]) == {"same_pair", "shared_checkpoint", "no_shared_checkpoint"}
    assert found["mean_half_width"] > 1.6 * 0.03  # the noise of a label alone needs that much
    fitted = selector.metrics["interval_coverage"]
    assert fitted["every_action"] == pytest.approx(0.9, abs=0.03)
    assert fitted["chosen_action"] == pytest.approx(0.9, abs=0.03)
    prediction = selector.predict(test.features)
    share = np.mean(np.abs(test.utilities - prediction.utilities) <= prediction.half_width)
    assert found["every_action"] == pytest.approx(share)  # every merge has two rows


def test_a_higher_level_is_wider(rows: TrainingRows, selector: Selector) -> None:
    wide = train(rows, config=replace(QUICK, interval_level=0.95), seed=0)
    for first, second in zip(selector.calibration.actions, wide.calibration.actions, strict=True):
        assert first.floor == second.floor
        assert first.quantile < second.quantile
    assert wide.calibration.promised == 0.95


def test_calibration_survives_saving(selector: Selector, rows: TrainingRows, tmp_path: Path) -> None:
    folder = selector.save(tmp_path / "selector")
    again = Selector.load(folder)
    assert again.calibration == selector.calibration
    assert again.noise == selector.noise
    assert again.key == selector.key
    ours, theirs = selector.predict(rows.features).half_width, again.predict(rows.features).half_width
    np.testing.assert_array_equal(ours, theirs)
    assert Calibration.from_json(json.loads(json.dumps(selector.calibration.as_json()))) == selector.calibration
    once = {file.name: file.read_bytes() for file in folder.iterdir()}
    again.save(tmp_path / "again")
    assert {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()} == once


def test_a_selector_without_calibration_is_to_be_trained_again(selector: Selector, tmp_path: Path) -> None:
    folder = selector.save(tmp_path / "selector")
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "format": 1}))
    with pytest.raises(SelectionError, match=r"format 1 .* train it again"):
        Selector.load(folder)


def test_threads_change_no_half_width(rows: TrainingRows, selector: Selector) -> None:
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        with threadpool_limits(limits=threads):
            found.append(selector.predict(rows.features).half_width)
    torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_differences_against_a_loop_over_merges() -> None:
    """All couples of merges on one task in one fold, the expert shown first, written without arrays."""
    world = make_world(per_domain=3, noise=0.05, actions=ACTIONS, seed=4)
    rows = training_rows(world.features, world.labels, actions=world.actions)
    rng = np.random.default_rng(0)
    members = rows.utilities + rng.normal(0.0, 0.05, (3, *rows.utilities.shape))
    predicted = members.mean(axis=0)
    folds = rows.pairs % 4
    meta = rows.meta.to_dicts()
    shown = [i for i, row in enumerate(meta) if row["a_domain"] == row["task"]]
    assert len(shown) == len(rows) / 2
    expected: dict[str, list[tuple[float, float]]] = {"shared_checkpoint": [], "no_shared_checkpoint": []}
    for i, j in combinations(shown, 2):
        if meta[i]["task"] != meta[j]["task"] or folds[i] != folds[j]:
            continue
        p, q = int(predicted[i].argmax()), int(predicted[j].argmax())
        error = (rows.utilities[i, p] - rows.utilities[j, q]) - (predicted[i, p] - predicted[j, q])
        spread = float(np.std([m[i, p] - m[j, q] for m in members]))
        shares = {meta[i]["a"], meta[i]["b"]} & {meta[j]["a"], meta[j]["b"]}
        expected["shared_checkpoint" if shares else "no_shared_checkpoint"].append((abs(error), spread))
    found = difference_errors(rows, predicted, members, folds)
    for kind, couples in expected.items():
        ours = sorted(zip(np.abs(found[kind].error).round(12), found[kind].spread.round(12), strict=True))
        np.testing.assert_allclose(ours, sorted(couples), atol=1e-9)
    same = found["same_pair"]
    assert len(same.error) == len(shown) * (len(ACTIONS) - 1)
    assert same.weight.sum() == pytest.approx(len(shown))


def test_every_merge_counts_once(rows: TrainingRows) -> None:
    weights = merge_weights(rows.meta)
    assert weights.sum() == pytest.approx(rows.meta.select("task", "kind").height / 2)
    np.testing.assert_array_equal(merge_weights(rows.filter(rows.meta["a"] < rows.meta["b"]).meta), 1.0)


def test_without_two_merges_per_fold_half_widths_add_up() -> None:
    world = make_world(per_domain=2, actions=ACTIONS, seed=2)
    rows = training_rows(world.features, world.labels, actions=world.actions)
    folds = rows.pairs  # every pair alone
    members = np.broadcast_to(rows.utilities + 0.01, (int(folds.max()) + 1, *rows.utilities.shape))
    calibration = calibrate(rows, members, folds, level=0.9)
    assert set(calibration.differences) == {"same_pair"}
    few = rows.filter(rows.pairs < 3)
    assert calibrate(few, members[:, rows.pairs < 3], few.pairs, level=0.9).differences == {}
    assert calibrate(few, members[:, rows.pairs < 3], few.pairs, level=0.9).promised < 0.9
    half = calibration.difference_half_width("shared_checkpoint", np.zeros((2, 1)), np.array([[0.1]]), 0.2)
    np.testing.assert_allclose(half, [[0.3], [0.3]])


def test_label_noise_is_the_variance_of_an_item(world: World, rows: TrainingRows, selector: Selector) -> None:
    assert set(selector.noise) == {"math", "code", "rag", "chat"}
    for noise in selector.noise.values():
        assert noise.variance == pytest.approx(200 * 0.03**2)
        assert noise.items == 200
    silent = training_rows(world.features, world.labels.drop("stderr", "n"), actions=world.actions)
    assert silent.item_variance is None
    assert silent.fingerprint == rows.fingerprint
    blind = train(silent, config=replace(QUICK, epochs=2), seed=0)
    loud = train(rows, config=replace(QUICK, epochs=2), seed=0)
    assert blind.noise == {}
    assert blind.key == loud.key


def test_bad_input_is_said_in_one_sentence(rows: TrainingRows, selector: Selector) -> None:
    with pytest.raises(SelectionError, match="level 1"):
        SelectorConfig(interval_level=1.0)
    with pytest.raises(SelectionError, match="0 rows"):
        interval_coverage(selector, rows.of_split("nothing"))
    with pytest.raises(SelectionError, match="selector's actions"):
        interval_coverage(selector, rows.with_actions(["linear@0.5", "ties@0.5"]))
