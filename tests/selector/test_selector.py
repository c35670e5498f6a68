"""The selector learns what can be learned, nothing else, and gives the same bytes each time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from selector_world import World, make_world

from simmerge_core.errors import SelectionError
from simmerge_core.selector import MODELS, Selector, SelectorConfig, TrainingRows, train, training_rows
from simmerge_core.selector.mlp import Targets

QUICK_LOAD = SelectorConfig(widths=(8,), learning_rates=(6e-3,), dropouts=(0.0,), members=2, epochs=2)
QUICK = SelectorConfig(widths=(32,), learning_rates=(6e-3,), dropouts=(0.1,), members=5, epochs=40)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(per_domain=6)


@pytest.fixture(scope="module")
def rows(world: World) -> TrainingRows:
    return training_rows(world.features, world.labels, actions=world.actions)


@pytest.fixture(scope="module")
def selector(rows: TrainingRows) -> Selector:
    return train(rows, config=QUICK, seed=0)


def _gained(world: World, rows: TrainingRows, chosen: np.ndarray) -> float:
    """Share of the oracle's gain over the best fixed action, on the true utilities of the test pairs."""
    test = rows.of_split("test")
    truth = np.stack([world.truth(*r) for r in test.meta.select("a", "b", "task").rows()])
    fixed = truth[:, rows.of_split("train").utilities.mean(axis=0).argmax()].mean()
    return float((truth[np.arange(len(truth)), chosen].mean() - fixed) / (truth.max(axis=1).mean() - fixed))


def test_beats_best_fixed_on_held_out_pairs(world: World, rows: TrainingRows, selector: Selector) -> None:
    test = rows.of_split("test").features
    assert _gained(world, rows, selector.predict(test).choice()) > 0.8
    assert _gained(world, rows, MODELS["norm_ratio"](rows).predict(test).choice()) > 0.95
    assert _gained(world, rows, MODELS["ridge"](rows).predict(test).choice()) > 0.3


def test_shuffled_labels_give_no_gain(world: World, rows: TrainingRows) -> None:
    order = np.random.default_rng(0).permutation(len(rows))
    train_rows = (rows.meta["split"] != "test").to_numpy()
    shuffled = rows.utilities.copy()
    shuffled[train_rows] = rows.utilities[train_rows][np.argsort(order[train_rows])]
    control = TrainingRows(rows.features, shuffled, rows.meta, rows.actions)
    assert _gained(world, rows, train(control, config=QUICK).predict(rows.of_split("test").features).choice()) < 0.35


def test_test_rows_are_never_read(rows: TrainingRows, selector: Selector) -> None:
    spoiled = rows.utilities.copy()
    spoiled[(rows.meta["split"] == "test").to_numpy()] = 1e6
    other = train(TrainingRows(rows.features, spoiled, rows.meta, rows.actions), config=QUICK, seed=0)
    assert other.key == selector.key


def test_save_and_load_predict_the_same(rows: TrainingRows, selector: Selector, tmp_path: Path) -> None:
    again = Selector.load(selector.save(tmp_path / "selector"))
    ours, theirs = selector.predict(rows.features), again.predict(rows.features)
    np.testing.assert_array_equal(ours.utilities, theirs.utilities)
    np.testing.assert_array_equal(ours.uncertainty, theirs.uncertainty)
    assert again.key == selector.key == json.loads((tmp_path / "selector" / "config.json").read_text())["key"]
    assert again.actions == selector.actions
    assert again.metrics == selector.metrics
    assert sorted(p.name for p in (tmp_path / "selector").iterdir()) == [
        "config.json",
        "metrics.json",
        "selector.safetensors",
    ]


def test_damaged_selectors_are_refused(selector: Selector, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="no selector"):
        Selector.load(tmp_path / "nowhere")
    folder = selector.save(tmp_path / "selector")
    weights = folder / "selector.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(SelectionError, match="not those"):
        Selector.load(folder)


_TRAIN = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from selector_world import make_world
from simmerge_core.selector import SelectorConfig, train, training_rows
torch.set_num_threads(int(sys.argv[2]))
w = make_world(per_domain=3)
rows = training_rows(w.features, w.labels, actions=w.actions)
config = SelectorConfig(widths=(16, 32), learning_rates=(6e-3,), dropouts=(0.1,), members=3, epochs=6)
train(rows, config=config).save(Path(sys.argv[3]))
"""


def test_same_bytes_at_any_number_of_threads(tmp_path: Path) -> None:
    for threads in ("1", "4"):
        command = [sys.executable, "-c", _TRAIN, str(Path(__file__).parent), threads, str(tmp_path / threads)]
        subprocess.run(
            command,
            check=True,
            cwd=Path(__file__).parents[2],
            env={"OMP_NUM_THREADS": threads, "PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    for file in ("selector.safetensors", "config.json", "metrics.json"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "4" / file).read_bytes()


def test_training_leaves_the_thread_setting_and_global_generators_alone(rows: TrainingRows) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads()
    train(rows, config=SelectorConfig(widths=(8,), learning_rates=(6e-3,), dropouts=(0.0,), members=2, epochs=2))
    assert torch.get_num_threads() == before
    torch.testing.assert_close(torch.rand(3), expected)


def test_uncertainty_grows_off_the_training_distribution(rows: TrainingRows, selector: Selector) -> None:
    test = rows.of_split("test").features
    names = [n for n in selector.feature_names if rows.features[n].dtype == pl.Float64]
    rng = np.random.default_rng(0)
    far = test.with_columns(
        (pl.col(n) + float(rng.choice([-1, 1])) * 4.0 * float(selector.scaler.scale[i])).alias(n)
        for i, n in enumerate(names)
    )
    assert selector.predict(far).uncertainty.mean() > 2.0 * selector.predict(test).uncertainty.mean()


def test_rows_do_not_depend_on_the_rows_beside_them(rows: TrainingRows, selector: Selector) -> None:
    whole = selector.predict(rows.features).utilities
    parts = np.concatenate([selector.predict(rows.features[i : i + 1]).utilities for i in range(20)])
    np.testing.assert_allclose(parts, whole[:20], atol=1e-12)
    assert selector.predict(rows.features.clear()).utilities.shape == (0, 3)


def test_unknown_task_is_encoded_as_zeros(rows: TrainingRows, selector: Selector) -> None:
    from simmerge_core.selector import block_of

    block = block_of(rows.features.head(3).with_columns(pl.lit("poetry").alias("task")), selector.feature_names)
    code = selector.scaler(block)[:, len(selector.feature_names) :]
    assert code.shape == (3, 3)
    assert not code.any()
    blind = train(
        rows,
        config=SelectorConfig(
            encode_task=False, widths=(8,), learning_rates=(6e-3,), dropouts=(0.0,), members=2, epochs=2
        ),
    )
    assert blind.tasks == ()
    assert blind.networks["level"]["w1"].shape[1] == len(blind.feature_names)


def test_targets_come_back() -> None:
    utilities = np.random.default_rng(0).uniform(size=(20, 4))
    targets = Targets.fit(utilities)
    np.testing.assert_allclose(targets.decode(*targets.encode(utilities)), utilities)


@pytest.mark.parametrize("name", [n for n in MODELS if n != "simmerge"])
def test_baselines_share_the_interface(name: str, rows: TrainingRows) -> None:
    model = MODELS[name](rows, seed=1)
    assert model.name == name
    answer = model.predict(rows.features.head(9))
    assert answer.utilities.shape == answer.uncertainty.shape == (9, 3)
    assert np.isfinite(answer.utilities).all()
    assert (answer.uncertainty >= 0).all()
    np.testing.assert_array_equal(answer.utilities, MODELS[name](rows, seed=1).predict(rows.features.head(9)).utilities)


def test_fixed_baselines_are_the_training_means(rows: TrainingRows) -> None:
    known = rows.of_split("train", "validation")
    fixed = MODELS["best_fixed"](rows).predict(rows.features)
    assert (fixed.choice() == known.utilities.mean(axis=0).argmax()).all()
    by_task = MODELS["best_fixed_per_task"](rows).predict(rows.features)
    for task in ("math", "code", "rag"):
        best = known.utilities[(known.meta["task"] == task).to_numpy()].mean(axis=0).argmax()
        assert (by_task.choice()[(rows.meta["task"] == task).to_numpy()] == best).all()
    drawn = MODELS["random"](rows).predict(rows.features).choice()
    assert np.bincount(drawn, minlength=3).min() > len(rows) / 5


def test_ridge_solves_the_normal_equations(rows: TrainingRows) -> None:
    from sklearn.linear_model import Ridge as Peer

    from simmerge_core.selector.baselines.ridge import _solve

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6)), rng.normal(size=(50, 2))
    np.testing.assert_allclose(_solve(x, y, 3.0), Peer(alpha=3.0, fit_intercept=False).fit(x, y).coef_.T)


def test_bad_input_is_said_in_one_sentence(rows: TrainingRows, selector: Selector) -> None:
    with pytest.raises(SelectionError, match="weight_cosine"):
        selector.predict(rows.features.drop("weight_cosine"))
    with pytest.raises(SelectionError, match="not a finite number"):
        selector.predict(rows.features.with_columns(pl.lit(float("nan")).alias("weight_cosine")))
    with pytest.raises(SelectionError, match="label more pairs"):
        train(rows.filter(rows.pairs < 3))
    with pytest.raises(SelectionError, match="groups"):
        SelectorConfig(groups=("colour",))


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.pop("calibration"),
        lambda c: c.pop("weights_sha256"),
        lambda c: c["calibration"].pop("actions"),
        lambda c: c["calibration"]["chosen"].update(more=1),
        lambda c: c.update(level_mean=5.0),
        lambda c: c.update(key="0"),
        lambda c: c["actions"].__setitem__(0, "dare@0.5"),
        lambda c: c["config"].update(members="x"),
        lambda c: c["networks"].append("zzz"),
        lambda c: c["feature_names"].pop(),
        lambda c: c["calibration"]["actions"].pop(),
    ],
)
def test_a_changed_configuration_is_refused(rows: TrainingRows, tmp_path: Path, damage: Any) -> None:
    train(rows, config=QUICK_LOAD, seed=0).save(tmp_path / "s")
    file = tmp_path / "s" / "config.json"
    described = json.loads(file.read_text("utf-8"))
    damage(described)
    file.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(SelectionError, match="train"):
        Selector.load(tmp_path / "s")


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff\xfe"])
def test_a_configuration_that_is_none_is_refused(rows: TrainingRows, tmp_path: Path, content: bytes) -> None:
    train(rows, config=QUICK_LOAD, seed=0).save(tmp_path / "s")
    (tmp_path / "s" / "config.json").write_bytes(content)
    with pytest.raises(SelectionError, match="train it again"):
        Selector.load(tmp_path / "s")
