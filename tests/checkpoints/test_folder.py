"""Opening folders: what the headers say, reading in chunks, and every kind of damage in one sentence."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_folders import LAYERS, VOCABULARY, WIDTH, Maker
from safetensors.torch import load_file

from simmerge_core.checkpoints import check_finite, open_checkpoint
from simmerge_core.errors import CheckpointError


def rewrite_header(file: Path, change: Any) -> None:
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_open_folder_agrees_with_the_safetensors_library(make: Maker, shards: int, dtype: torch.dtype) -> None:
    path = make("a", seed=1, dtype=dtype, shards=shards)
    folder = open_checkpoint(path)
    expected: dict[str, torch.Tensor] = {}
    for file in path.glob("*.safetensors"):
        expected |= load_file(file)
    assert set(folder.tensors) == set(expected)
    for name, tensor in expected.items():
        read = folder.read(name)
        assert read.dtype == dtype
        assert read.shape == tensor.shape
        assert torch.equal(read, tensor)
        flat = tensor.flatten()
        assert torch.equal(folder.read_chunk(name, 2, flat.numel() - 1), flat[2:-1])
    assert folder.name == "a"
    assert folder.parameters == sum(t.numel() for t in expected.values())
    assert folder.bytes == sum(t.numel() * t.element_size() for t in expected.values())
    assert folder.dtype == str(dtype).removeprefix("torch.")
    assert (folder.layers, folder.width, folder.vocabulary) == (LAYERS, WIDTH, VOCABULARY)
    assert folder.architecture == "LlamaForCausalLM"
    assert not folder.tied
    positions = [(e.file.name, e.begin) for e in folder.tensors.values()]
    assert positions == sorted(positions)


def test_a_tied_head_that_is_stored_too_is_not_a_tensor_of_its_own(make: Maker) -> None:
    def store_head(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()

    folder = open_checkpoint(make("a", tied=True, change=store_head))
    assert folder.tied
    assert "lm_head.weight" not in folder.tensors
    check_finite(folder)

    def store_other(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1

    with pytest.raises(CheckpointError, match=r"'b': config.json ties the head .* 'lm_head.weight' differs"):
        check_finite(open_checkpoint(make("b", tied=True, change=store_other)))


def test_tying_is_read_from_the_tensors_where_the_config_is_silent(make: Maker) -> None:
    assert open_checkpoint(make("a", tied=True, tie_word_embeddings=None)).tied
    assert not open_checkpoint(make("b", tie_word_embeddings=None)).tied


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'gone': folder .* does not exist"):
        open_checkpoint(tmp_path / "gone")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("pytorch_model.bin", "only pickled weights"),
        ("consolidated.pth", "only pickled weights"),
        ("adapter_model.safetensors", "is an adapter"),
        ("notes.txt", "holds neither model.safetensors nor"),
    ],
)
def test_no_usable_weights(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / file).write_bytes(b"x")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path, name="a")


def test_config_missing_damaged_or_quantised(make: Maker) -> None:
    path = make("a")
    (path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json is not valid JSON"):
        open_checkpoint(path)
    (path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config.json is not a JSON object"):
        open_checkpoint(path)
    (path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"is quantised"):
        open_checkpoint(make("q", quantization_config={"bits": 4}))


@pytest.mark.parametrize("cut", [4, 100, -1, -40])
def test_truncated_file(make: Maker, cut: int) -> None:
    path = make("a")
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"'a': model.safetensors is truncated"):
        open_checkpoint(path)


def test_trailing_bytes(make: Maker) -> None:
    path = make("a")
    with (path / "model.safetensors").open("ab") as handle:
        handle.write(b"\0" * 8)
    with pytest.raises(CheckpointError, match=r"bytes after its last tensor"):
        open_checkpoint(path)


HEAD = "lm_head.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda h: h[HEAD].update(data_offsets=[4, 4 + 4 * VOCABULARY * WIDTH]),
            "overlaps its neighbour|leaves a hole",
        ),
        (lambda h: h.pop(HEAD), "leaves a hole before it|bytes after"),
        (lambda h: h[HEAD].update(shape=[VOCABULARY, WIDTH + 1]), "'lm_head.weight' does not have the bytes"),
        (lambda h: h[HEAD].update(shape=[-1, 8]), "'lm_head.weight' has no valid shape"),
        (lambda h: h[HEAD].update(shape=[True, 8]), "'lm_head.weight' has no valid shape"),
        (lambda h: h[HEAD].update(data_offsets="0"), "'lm_head.weight' has no valid data_offsets"),
        (lambda h: h[HEAD].update(data_offsets=[0, 1e9]), "'lm_head.weight' has no valid data_offsets"),
        (lambda h: h[HEAD].update(dtype="F4"), "'lm_head.weight' in model.safetensors has dtype 'F4'"),
        (lambda h: h.update({HEAD: 3}), "'lm_head.weight' has no valid shape"),
    ],
)
def test_damaged_header(make: Maker, change: Any, message: str) -> None:
    path = make("a")
    rewrite_header(path / "model.safetensors", change)
    with pytest.raises(CheckpointError, match=rf"Checkpoint 'a'.*({message})"):
        open_checkpoint(path)


@pytest.mark.parametrize("text", [b"not json", b"[1, 2]", b'{"a": 1, "a": 2}', b"\xff\xfe"])
def test_header_that_is_no_object(make: Maker, text: bytes) -> None:
    path = make("a")
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(CheckpointError, match=r"damaged header"):
        open_checkpoint(path)


@given(st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int) -> None:
    """Whatever is in the file, the answer is a checkpoint or one sentence."""
    path = tmp_path_factory.mktemp("fuzz")
    header = b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    raw = bytearray(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    place = min(place, len(raw))
    raw[place : place + len(noise)] = noise
    (path / "model.safetensors").write_bytes(bytes(raw))
    (path / "config.json").write_text("{}")
    with contextlib.suppress(CheckpointError):  # any other exception fails the test
        assert set(open_checkpoint(path).tensors)


def edit_index(path: Path, change: Any) -> None:
    file = path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change(index)
    file.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..\\x.safetensors", "x.bin", 3]
)
def test_index_that_leaves_the_folder(make: Maker, name: object) -> None:
    path = make("a", shards=2)
    edit_index(path, lambda index: index["weight_map"].update({HEAD: name}))
    with pytest.raises(
        CheckpointError, match=r"'lm_head.weight' into .* which is not a safetensors file of this folder"
    ):
        open_checkpoint(path)


def test_index_and_shards_that_disagree(make: Maker) -> None:
    path = make("a", shards=2)
    (path / "model-00002-of-00002.safetensors").rename(path / "kept")
    with pytest.raises(CheckpointError, match=r"names model-00002-of-00002.safetensors, which is missing"):
        open_checkpoint(path)
    (path / "kept").rename(path / "model-00002-of-00002.safetensors")
    edit_index(path, lambda index: index["weight_map"].pop(HEAD))
    with pytest.raises(CheckpointError, match=r"holds tensor 'lm_head.weight', which .* does not name"):
        open_checkpoint(path)
    edit_index(
        path,
        lambda index: index["weight_map"].update(
            {HEAD: "model-00001-of-00002.safetensors", "extra": "model-00001-of-00002.safetensors"}
        ),
    )
    with pytest.raises(CheckpointError, match=r"which does not hold it"):
        open_checkpoint(path)
    edit_index(path, lambda index: index.pop("weight_map"))
    with pytest.raises(CheckpointError, match=r"has no weight_map"):
        open_checkpoint(path)


def test_a_tensor_in_two_shards(make: Maker) -> None:
    path = make("a", shards=2)
    first = path / "model-00001-of-00002.safetensors"
    (path / "model-00002-of-00002.safetensors").write_bytes(first.read_bytes())
    with pytest.raises(CheckpointError, match=r"is in both"):
        open_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite_are_named(make: Maker, value: float, dtype: torch.dtype) -> None:
    def poison(weights: dict[str, torch.Tensor]) -> None:
        weights["model.layers.1.mlp.up_proj.weight"][3, 4] = value

    folder = open_checkpoint(make("bad", dtype=dtype, change=poison))  # the headers are fine
    with pytest.raises(
        CheckpointError, match=r"'bad': tensor 'model.layers.1.mlp.up_proj.weight' holds NaN or infinite"
    ):
        check_finite(folder)


def test_huge_but_finite_weights_pass(make: Maker) -> None:
    def enlarge(weights: dict[str, torch.Tensor]) -> None:
        weights["model.embed_tokens.weight"].fill_(3e38)

    check_finite(open_checkpoint(make("big", change=enlarge)))


def test_a_file_that_shrinks_after_it_was_opened(make: Maker) -> None:
    path = make("a")
    folder = open_checkpoint(path)
    last = list(folder.tensors)[-1]
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"ends inside tensor"):
        folder.read(last)
    with pytest.raises(CheckpointError, match=r"has no tensor 'nothing'"):
        folder.read("nothing")
