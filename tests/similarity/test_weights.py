"""Gram matrix and weight metrics against float64 brute force on flattened vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from simmerge_core.checkpoints import CheckpointFolder, fingerprint, layer_and_module
from simmerge_core.errors import CheckpointError, TableError
from simmerge_core.similarity import gram as gram_module
from simmerge_core.similarity import structural, weight_gram
from simmerge_core.tables import WEIGHT_GRAM

Weights = dict[str, Tensor]
Tune = Callable[..., Weights]
Write = Callable[..., CheckpointFolder]


def _family(tmp_path: Path, write: Write, base: Weights, tuned: dict[str, Weights], **options: Any) -> pl.DataFrame:
    folders = {
        name: write(tmp_path / name, weights, tied=options.get("tied", False)) for name, weights in tuned.items()
    }
    root = write(tmp_path / "base", base, tied=options.pop("tied", False))
    names = list(tuned)
    pairs = options.pop("pairs", [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]])
    return weight_gram(folders, root, pairs, **options)


def _flat(weights: Weights, scope: str) -> np.ndarray:
    kind, _, value = scope.partition(".")

    def inside(name: str) -> bool:
        layer, module = layer_and_module(name)
        return kind == "global" or (kind == "layer" and str(layer) == value) or (kind == "module" and module == value)

    return np.concatenate([weights[n].double().numpy().ravel() for n in sorted(weights) if inside(n)])


def _expected(a: Weights, b: Weights, base: Weights, scope: str) -> dict[str, float]:
    x, y, o = (_flat(w, scope) for w in (a, b, base))
    norm = np.linalg.norm
    return {
        "cosine": x @ y / norm(x) / norm(y),
        "l2": norm(x - y),
        "norm_a": norm(x),
        "norm_b": norm(y),
        "norm_base": norm(o),
        "task_vector_cosine": (x - o) @ (y - o) / norm(x - o) / norm(y - o),
        "task_vector_norm_a": norm(x - o),
        "task_vector_norm_b": norm(y - o),
    }


SCOPES = ["global", "layer.0", "layer.1", *(f"module.{m}" for m in ("attention", "mlp", "norm", "embedding", "head"))]


def test_metrics_of_every_scope(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    tuned = {"m-1": tuned_weights(1), "m-2": tuned_weights(2, 0.05), "m-3": tuned_weights(3, 2.0)}
    frame = structural(_family(tmp_path, write_checkpoint, base_weights, tuned), [("m-1", "m-2"), ("m-3", "m-1")])
    for a, b in (("m-1", "m-2"), ("m-3", "m-1")):
        for scope in SCOPES:
            got = dict(frame.filter(a=a, b=b, scope=scope).select("metric", "value").iter_rows())
            assert got == pytest.approx(_expected(tuned[a], tuned[b], base_weights, scope), rel=2e-6, abs=2e-7), scope
    assert set(frame["scope"]) == set(SCOPES)


def test_products_and_signs_of_every_tensor(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    tuned = {"m-1": tuned_weights(1), "m-2": tuned_weights(2)}
    tuned["m-1"]["model.norm.weight"] = base_weights["model.norm.weight"].clone()  # frozen: a zero task vector
    tuned["m-2"]["lm_head.weight"][0] = 0.0
    frame = _family(tmp_path, write_checkpoint, base_weights, tuned)
    WEIGHT_GRAM.validated(frame.filter(checkpoint="m-1").drop("checkpoint"), where="here")
    for row in frame.iter_rows(named=True):
        raw = [(tuned | {"base": base_weights})[row[side]][row["tensor"]] for side in ("checkpoint", "other")]
        vectors = [
            w if row[side] == "base" else w - base_weights[row["tensor"]]
            for side, w in zip(("checkpoint", "other"), raw, strict=True)
        ]
        x, y = (v.double().numpy().ravel() for v in vectors)
        assert row["dot"] == pytest.approx(float(x @ y), rel=1e-13, abs=1e-13)
        assert row["sign_agreement"] == int((x * y > 0).sum())
        assert row["sign_conflict"] == int((raw[0].double() * raw[1].double() <= 0).sum())
        assert row["size"] == raw[0].numel()
        assert (row["layer"], row["module"]) == layer_and_module(row["tensor"])
    kinds = set(frame.select("checkpoint", "other").iter_rows())
    assert kinds == {
        ("m-1", "m-2"), ("m-1", "m-1"), ("m-2", "m-2"), ("m-1", "base"), ("m-2", "base"), ("base", "base"),
    }  # fmt: skip


def test_cosine_of_near_identical_fine_tunes(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    """1 - cos of about 1e-9 to a relative 1e-6, where a product of raw float32 weights has nothing left."""
    tuned = {"m-1": tuned_weights(1, 3e-5), "m-2": tuned_weights(2, 3e-5)}
    frame = structural(_family(tmp_path, write_checkpoint, base_weights, tuned), [("m-1", "m-2")])
    for scope in SCOPES:
        x, y = (_flat(tuned[name], scope) for name in ("m-1", "m-2"))
        u, v = x / np.linalg.norm(x), y / np.linalg.norm(y)
        one_minus = float((u - v) @ (u - v)) / 2  # exact to about 1e-7 here
        got = 1 - frame.filter(scope=scope, metric="cosine")["value"].item()
        assert 1e-10 < one_minus < 1e-8
        assert got == pytest.approx(one_minus, rel=1e-5)


def test_identical_checkpoints(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    tuned = {"m-1": tuned_weights(1), "m-2": tuned_weights(1), "m-3": dict(base_weights), "m-4": dict(base_weights)}
    frame = structural(_family(tmp_path, write_checkpoint, base_weights, tuned), [("m-1", "m-2"), ("m-3", "m-4")])
    values = frame.pivot("metric", index=["a", "b", "scope"], values="value")
    assert values["l2"].to_list() == [0.0] * values.height
    np.testing.assert_allclose(values["cosine"], 1.0, atol=1e-15)
    # Two zero task vectors are equal: their cosine counts as 1.
    np.testing.assert_allclose(values["task_vector_cosine"], 1.0, atol=1e-15)


def test_zero_task_vector_beside_another_has_cosine_zero(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    tuned = {"m-1": tuned_weights(1), "m-2": dict(base_weights)}
    frame = structural(_family(tmp_path, write_checkpoint, base_weights, tuned), [("m-1", "m-2")])
    assert set(frame.filter(metric="task_vector_cosine")["value"]) == {0.0}
    assert not frame["value"].is_nan().any()


def test_scaling_all_weights_scales_lengths_and_keeps_angles(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    def values(factor: float) -> dict[tuple[str, str], float]:
        tuned = {n: {k: factor * v for k, v in tuned_weights(i).items()} for i, n in enumerate(("m-1", "m-2"), start=1)}
        base = {k: factor * v for k, v in base_weights.items()}
        gram = _family(tmp_path / str(factor), write_checkpoint, base, tuned)
        return {(s, m): v for _, _, m, s, v in structural(gram, [("m-1", "m-2")]).iter_rows()}

    plain, scaled = values(1.0), values(4.0)  # a power of two: float32 scales exactly
    for (scope, metric), value in plain.items():
        factor = 1.0 if "cosine" in metric else 4.0
        assert scaled[scope, metric] == pytest.approx(factor * value, rel=1e-12), (scope, metric)


def test_chunks_and_threads_do_not_change_a_byte(
    tmp_path: Path, write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram_module, "BLOCK", 64)
    generator = torch.Generator().manual_seed(0)
    weights = [{"model.layers.1.mlp.up_proj.weight": torch.randn((31, 37), generator=generator)} for _ in range(4)]
    folders = {f"m-{n}": write_checkpoint(tmp_path / f"m-{n}", weights[n]) for n in range(3)}
    base = write_checkpoint(tmp_path / "base", weights[3])
    pairs = [("m-0", "m-1"), ("m-1", "m-2"), ("m-0", "m-2")]
    frames = []
    for threads, chunk in ((1, 64), (1, 1 << 20), (3, 130), (2, 1)):
        torch.set_num_threads(threads)
        frames.append(weight_gram(folders, base, pairs, chunk=chunk))
        assert torch.get_num_threads() == threads
    assert all(frame.equals(frames[0]) for frame in frames[1:])


def test_every_tensor_of_every_folder_is_read_once(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, str, int]] = []
    original = CheckpointFolder.read_chunk

    def counted(self: CheckpointFolder, name: str, start: int, stop: int) -> Tensor:
        read.extend((self.name, name, coordinate) for coordinate in range(start, stop))
        return original(self, name, start, stop)

    monkeypatch.setattr(CheckpointFolder, "read_chunk", counted)
    tuned = {f"m-{n}": tuned_weights(n) for n in range(1, 6)}
    known = dict.fromkeys([*tuned, "base"], "content")
    frame = _family(tmp_path, write_checkpoint, base_weights, tuned, fingerprints=known)
    assert len(read) == len(set(read)) == 6 * sum(w.numel() for w in base_weights.values())
    assert set(frame["other_fingerprint"]) == {"content"}


def test_fingerprints_are_those_of_the_folders(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    folder = write_checkpoint(tmp_path / "m-1", tuned_weights(1))
    frame = weight_gram({"m-1": folder}, write_checkpoint(tmp_path / "root", base_weights), [], base_id="base-0")
    assert set(frame.filter(checkpoint="m-1")["checkpoint_fingerprint"]) == {fingerprint(folder)}
    assert set(frame["other"]) == {"m-1", "base-0"}


def test_a_tied_head_counts_once(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    tuned = {"m-1": tuned_weights(1), "m-2": tuned_weights(2)}
    for weights in (*tuned.values(), base_weights):
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    gram = _family(tmp_path, write_checkpoint, base_weights, tuned, tied=True)
    assert "lm_head.weight" not in set(gram["tensor"])
    frame = structural(gram, [("m-1", "m-2")])
    for weights in (*tuned.values(), base_weights):
        del weights["lm_head.weight"]
    got = dict(frame.filter(scope="global").select("metric", "value").iter_rows())
    assert got == pytest.approx(_expected(tuned["m-1"], tuned["m-2"], base_weights, "global"), rel=2e-6)


def test_stored_in_bfloat16(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    short = [{k: v.bfloat16() for k, v in w.items()} for w in (tuned_weights(1), tuned_weights(2), base_weights)]
    gram = _family(tmp_path, write_checkpoint, short[2], {"m-1": short[0], "m-2": short[1]})
    got = dict(structural(gram, [("m-1", "m-2")]).filter(scope="global").select("metric", "value").iter_rows())
    assert got == pytest.approx(_expected(short[0], short[1], short[2], "global"), rel=2e-6)


def test_partitions_of_either_orientation_are_enough(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    tuned = {f"m-{n}": tuned_weights(n) for n in range(1, 4)}
    gram = _family(tmp_path, write_checkpoint, base_weights, tuned)
    shuffled = pl.concat([gram, gram.filter(checkpoint="m-1")]).sample(fraction=1.0, shuffle=True, seed=1)
    pairs = [("m-3", "m-1"), ("m-1", "m-2"), ("m-2", "m-2")]
    assert structural(gram, pairs).equals(structural(shuffled, pairs, base="base"))
    same = structural(gram, [("m-2", "m-2")])
    assert set(same.filter(metric="l2")["value"]) == {0.0}


def test_missing_products_are_named(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    tuned = {f"m-{n}": tuned_weights(n) for n in range(1, 4)}
    gram = _family(tmp_path, write_checkpoint, base_weights, tuned, pairs=[("m-1", "m-2")])
    with pytest.raises(TableError, match="no products of 'm-1' and 'm-3' with each other"):
        structural(gram, [("m-1", "m-2"), ("m-1", "m-3")])
    with pytest.raises(TableError, match="no products of 'm-9' with itself"):
        structural(gram, [("m-1", "m-9")])
    with pytest.raises(TableError, match="the own row of 0 bases"):
        structural(gram.filter(pl.col("checkpoint") != "base"), [("m-1", "m-2")])


def test_bad_input_is_named(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    base = write_checkpoint(tmp_path / "base", base_weights)
    good = write_checkpoint(tmp_path / "m-1", tuned_weights(1))
    with pytest.raises(CheckpointError, match="'m-7' is in a pair but was not opened"):
        weight_gram({"m-1": good}, base, [("m-1", "m-7")])
    with pytest.raises(CheckpointError, match="'base' is also given as a checkpoint"):
        weight_gram({"m-1": good, "base": base}, base, [])
    spoiled = tuned_weights(2)
    spoiled["model.norm.weight"][2] = torch.inf
    bad = write_checkpoint(tmp_path / "m-2", spoiled)
    with pytest.raises(CheckpointError, match=r"'model.norm.weight' of checkpoint 'm-2' .*not finite"):
        weight_gram({"m-1": good, "m-2": bad}, base, [("m-1", "m-2")])
    other = tuned_weights(3)
    other["lm_head.weight"] = torch.zeros((7, 5))
    with pytest.raises(CheckpointError, match=r"'base' and 'm-3'.*lm_head"):
        weight_gram({"m-3": write_checkpoint(tmp_path / "m-3", other)}, base, [])


def test_progress_reaches_one(
    tmp_path: Path, write_checkpoint: Write, base_weights: Weights, tuned_weights: Tune
) -> None:
    seen: list[float] = []
    _family(
        tmp_path, write_checkpoint, base_weights, {"m-1": tuned_weights(1)}, progress=lambda _, done: seen.append(done)
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
