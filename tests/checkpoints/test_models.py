"""Live models: only what came whole from the files."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from llama_folders import Maker, llama_weights

from simmerge_core.checkpoints import load_model
from simmerge_core.errors import CheckpointError


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_has_the_weights_of_its_files(make: Maker, tied: bool) -> None:
    model, tokenizer = load_model(make("a", seed=3, tied=tied), attn_implementation="eager")
    state = model.state_dict()
    for name, values in llama_weights(3, tied=tied).items():
        assert torch.equal(state[name], values)
    assert not model.training
    assert tokenizer("ab")["input_ids"] == [1, 2]
    assert model.config._attn_implementation == "eager"


def test_the_dtype_is_the_stored_one_unless_named(make: Maker) -> None:
    path = make("a", dtype=torch.bfloat16)
    assert load_model(path)[0].dtype == torch.bfloat16
    assert load_model(path, dtype=torch.float32)[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"change": lambda w: w.pop("model.layers.0.mlp.up_proj.weight")},
            "missing tensor 'model.layers.0.mlp.up_proj.weight'",
        ),
        ({"change": lambda w: w.update(other=torch.zeros(2))}, "unexpected tensor 'other'"),
        (
            {"change": lambda w: w.update({"model.norm.weight": torch.zeros(9)})},
            "mismatched tensor 'model.norm.weight'",
        ),
        ({"change": lambda w: w["model.norm.weight"].fill_(float("nan"))}, "'model.norm.weight' holds NaN"),
        ({"tokenizer": False}, "has no usable tokenizer"),
        ({"model_type": "no_such_architecture"}, "cannot be loaded as a causal language model"),
    ],
)
def test_a_model_that_would_not_be_the_checkpoint_is_refused(
    make: Maker, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=f"Checkpoint 'a'.*{message}"):
        load_model(make("a", **options))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers 1000000000, which is more than the weights hold \(2\)"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers 'many', which is not a positive whole number"),
        ({"vocab_size": 10**12}, "vocab_size 1000000000000, which is more than the weights hold"),
        ({"hidden_size": -8}, "hidden_size -8, which is not a positive whole number"),
        ({"hidden_size": 10**9}, "hidden_size 1000000000, which is more than the weights hold"),
        ({"rms_norm_eps": "x"}, "cannot be loaded as a causal language model"),
        ({"architectures": 5, "hidden_act": "nope"}, "cannot be loaded as a causal language model"),
    ],
)
def test_a_config_that_does_not_belong_to_the_weights_is_refused(
    make: Maker, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=f"Checkpoint 'a'.*{message}"):
        load_model(make("a", **config))


def test_nesting_without_end_is_damage(make: Maker) -> None:
    path = make("a")
    (path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        load_model(path)


def test_a_tokenizer_of_another_type_is_refused(make: Maker) -> None:
    path = make("a")
    (path / "tokenizer.json").write_text("[]")
    with pytest.raises(CheckpointError, match="has no usable tokenizer"):
        load_model(path)
