"""The frozen feature map: what it computes, what it was trained on, and what it is when it is read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from bandit_world import QUICK, World, encoded_by_hand, make_world, one_row
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_limits

from simmerge_core.bandit import Encoder, train_encoder
from simmerge_core.bandit import encoder as encoder_module
from simmerge_core.bandit.encoder import CONFIG_FILE, LEAST_PAIRS, WEIGHTS_FILE
from simmerge_core.errors import BanditError, SelectionError
from simmerge_core.files import hash_file
from simmerge_core.selector import TrainingRows
from simmerge_core.selector.block import FeatureBlock, block_of


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def rows(world: World) -> TrainingRows:
    return world.rows()


@pytest.fixture(scope="module")
def encoder(rows: TrainingRows) -> Encoder:
    return train_encoder(rows, config=QUICK, seed=3)


@pytest.fixture
def saved(encoder: Encoder, tmp_path: Path) -> Path:
    return encoder.save(tmp_path / "encoder")


def test_z_is_the_hidden_layers_by_hand(encoder: Encoder, rows: TrainingRows) -> None:
    block = block_of(rows.features, encoder.feature_names).take(np.arange(0, len(rows), 7))
    expected = [encoded_by_hand(encoder, x, str(task)) for x, task in zip(block.x, block.tasks, strict=True)]
    found = encoder(block)
    assert found.dtype == np.float64
    assert found.shape == (len(block), encoder.dimension) == (len(block), QUICK.widths[0] + 1)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    assert (found[:, :-1] > 0).any(axis=0).sum() > 2  # a map that is zero would pass, too


def test_an_unknown_task_is_encoded_as_none(encoder: Encoder, rows: TrainingRows) -> None:
    x = block_of(rows.features, encoder.feature_names).x[0]
    assert encoder.tasks == ("chat", "code", "math", "rag")
    np.testing.assert_allclose(encoder(one_row(x, "new"))[0], encoded_by_hand(encoder, x, "new"), rtol=1e-12)
    assert not np.array_equal(encoder(one_row(x, "new")), encoder(one_row(x, "math")))


def test_values_far_away_are_clipped(encoder: Encoder) -> None:
    scaler = encoder.scaler
    far, edge = scaler.mean + 1e9 * scaler.scale, scaler.mean + scaler.clip * scaler.scale
    np.testing.assert_allclose(encoder(one_row(far, "math")), encoder(one_row(edge, "math")), rtol=1e-9)


def test_the_last_coordinate_is_one_and_the_others_have_unit_scale(encoder: Encoder, rows: TrainingRows) -> None:
    z = encoder(block_of(rows.of_split("train", "validation").features, encoder.feature_names))
    assert (z[:, -1] == 1.0).all()
    assert np.sqrt(np.mean(z[:, :-1] ** 2)) == pytest.approx(1.0, rel=1e-12)


def test_labels_that_are_all_the_same_give_a_constant(rows: TrainingRows) -> None:
    flat = train_encoder(replace(rows, utilities=np.full_like(rows.utilities, 0.5)), config=QUICK)
    z = flat(block_of(rows.features, flat.feature_names))
    assert np.isfinite(z).all()
    assert (z[:, -1] == 1.0).all()


def test_the_same_bytes_at_one_and_two_threads(encoder: Encoder, rows: TrainingRows) -> None:
    block, before = block_of(rows.features, encoder.feature_names), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                again = train_encoder(rows, config=QUICK, seed=3)
                found.append((again.key, again(block).tobytes()))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == (encoder.key, encoder(block).tobytes())
    assert train_encoder(rows, config=QUICK, seed=4).key != encoder.key


def test_the_test_split_is_never_read(encoder: Encoder, rows: TrainingRows) -> None:
    test = (rows.meta["split"] == "test").to_numpy()
    assert test.any()
    utilities = np.where(test[:, None], np.nan, rows.utilities)
    features = rows.features.with_columns(
        pl.when(pl.Series(test)).then(float("inf")).otherwise(pl.col(name)).alias(name)
        for name in encoder.feature_names
    )
    changed = replace(rows, utilities=utilities, features=features)
    assert train_encoder(changed, config=QUICK, seed=3).key == encoder.key
    known = replace(rows, utilities=np.where(test[:, None], rows.utilities, rows.utilities + 0.01 * ~test[:, None]))
    assert train_encoder(known, config=QUICK, seed=3).training_fingerprint != encoder.training_fingerprint


def test_too_few_pairs_are_refused(rows: TrainingRows) -> None:
    known = rows.of_split("train", "validation")
    few = known.filter(np.isin(known.pairs, np.unique(known.pairs)[: LEAST_PAIRS - 1]))
    with pytest.raises(BanditError, match=r"Only 7 labelled pairs are outside the test split, .* at least 8: label"):
        train_encoder(few, config=QUICK)
    enough = known.filter(np.isin(known.pairs, np.unique(known.pairs)[:LEAST_PAIRS]))
    assert train_encoder(enough, config=QUICK).dimension == QUICK.widths[0] + 1


def test_a_pair_in_two_splits_is_refused(rows: TrainingRows) -> None:
    split = rows.meta["split"].to_list()
    at = split.index("train")
    a, b = rows.meta.select("a", "b").row(at)
    split[at] = "test"
    with pytest.raises(SelectionError, match=f"{min(a, b)}.*{max(a, b)}.* lies in more than one split"):
        train_encoder(rows.with_split(split), config=QUICK)


# --- kept and read back


def test_it_is_the_same_when_it_is_read_back(encoder: Encoder, saved: Path, rows: TrainingRows, tmp_path: Path) -> None:
    again = Encoder.load(saved)
    assert again.key == encoder.key
    assert again.training_fingerprint == encoder.training_fingerprint
    block = block_of(rows.features, again.feature_names)
    assert again(block).tobytes() == encoder(block).tobytes()
    other = again.save(tmp_path / "other")
    for file in (WEIGHTS_FILE, CONFIG_FILE):
        assert (other / file).read_bytes() == (saved / file).read_bytes()
    assert sorted(path.name for path in saved.parent.iterdir()) == ["encoder", "other"]  # no litter


def _configured(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        described = json.loads((folder / CONFIG_FILE).read_text())
        change(described)
        (folder / CONFIG_FILE).write_text(json.dumps(described))

    return damage


def _other_weights(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)


def _consistent(change: Callable[[dict[str, np.ndarray]], None]) -> Callable[[Path], None]:
    """Other tensors, with a configuration that names their hash."""

    def damage(folder: Path) -> None:
        tensors = {name: value.copy() for name, value in load_file(folder / WEIGHTS_FILE).items()}
        change(tensors)
        save_file(tensors, folder / WEIGHTS_FILE)
        _configured(lambda d: d.update(weights_sha256=hash_file(folder / WEIGHTS_FILE)))(folder)

    return damage


def _not_safetensors(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(b"x" * 20)
    _configured(lambda d: d.update(weights_sha256=hash_file(folder / WEIGHTS_FILE)))(folder)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / WEIGHTS_FILE).unlink(), r"no encoder in .*encoder, encoder\.safetensors is missing"),
        (lambda folder: (folder / CONFIG_FILE).unlink(), r"no encoder in .*encoder, encoder\.json is missing"),
        (_other_weights, "weights in .* are not those its configuration names"),
        (_not_safetensors, "is damaged"),
        (_consistent(lambda t: t.pop("w2")), "is damaged .*w2"),
        (_consistent(lambda t: t["w1"].__setitem__((0, 0), 9.0)), "is not what its key says"),
        (lambda folder: (folder / CONFIG_FILE).write_text("{"), "is damaged .*JSONDecodeError"),
        (lambda folder: (folder / CONFIG_FILE).write_text("[]"), "is damaged"),
        (lambda folder: (folder / CONFIG_FILE).write_bytes(b"\xff"), "is damaged .*UnicodeDecodeError"),
        (_configured(lambda d: d.pop("scale")), "is damaged .*scale"),
        (_configured(lambda d: d.update(scale=1.5)), "is not what its key says"),
        (_configured(lambda d: d.update(tasks=["a", "b", "c", "d"])), "is not what its key says"),
        (_configured(lambda d: d.update(feature_version=0)), "feature version 0, not 1 and 1: .*`simmerge bandit rest"),
        (_configured(lambda d: d.update(format=99)), "format 99 and feature version 1, not 1 and 1"),
    ],
)
def test_what_is_missing_damaged_or_of_another_version_is_refused(
    saved: Path, damage: Callable[[Path], None], told: str
) -> None:
    damage(saved)
    with pytest.raises(BanditError, match=told):
        Encoder.load(saved)


def test_a_later_feature_version_refuses_it_by_name(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "FEATURE_VERSION", 2)
    with pytest.raises(BanditError, match=r"feature version 1, not 1 and 2: start a new bandit"):
        Encoder.load(saved)


# --- targets of several tasks


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_a_weighted_mean_of_rewards_is_linear_in_the_weighted_mean_of_contexts(
    encoder: Encoder, seed: int, tasks: int
) -> None:
    rng = np.random.default_rng(seed)
    x = encoder.scaler.mean + 2.0 * encoder.scaler.scale * rng.normal(size=(tasks, len(encoder.scaler.mean)))
    names = (*encoder.tasks[: tasks - 1], "new")
    weights = rng.dirichlet(np.ones(tasks))
    context = encoder.context([one_row(row, name) for row, name in zip(x, names, strict=True)], weights.tolist())
    for arm in rng.normal(size=(5, encoder.dimension)):
        by_task = [arm @ np.array(encoded_by_hand(encoder, row, name)) for row, name in zip(x, names, strict=True)]
        assert arm @ context.z == pytest.approx(float(weights @ by_task), rel=1e-9, abs=1e-9)
    assert context.z[-1] == pytest.approx(1.0)
    assert context.tasks == tuple(zip(names, weights.tolist(), strict=True))
    assert context.source == encoder.key


def test_one_weight_per_task(encoder: Encoder) -> None:
    block: FeatureBlock = one_row(encoder.scaler.mean, "math")
    with pytest.raises(ValueError, match="zip"):
        encoder.context([block, block], (1.0,))
