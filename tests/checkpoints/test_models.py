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
