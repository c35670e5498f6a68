"""The compact engine against transformers and autograd."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from simmerge_core.demo.checkpoint_folder import configuration
from simmerge_core.demo.engine import Engine
from simmerge_core.demo.layout import parameter_count, parameter_shapes, to_flat, to_named
from simmerge_core.demo.packing import pack
from simmerge_core.demo.presets import PRESETS, Architecture
from simmerge_core.demo.tokenizer import VOCABULARY

ARCHITECTURES = {name: PRESETS[name].architecture for name in ("tiny", "demo")}


def _model(parameters: torch.Tensor, architecture: Architecture) -> LlamaForCausalLM:
    model = LlamaForCausalLM(LlamaConfig(**configuration(architecture)))
    model.load_state_dict(to_named(parameters, architecture), strict=True)
    return model.double()


def _sequences(count: int, longest: int) -> list[list[int]]:
    rng = Random(4)
    # Without the end token, which transformers treats as padding (no gradient) and which is never an input here.
    return [[rng.randrange(1, VOCABULARY) for _ in range(rng.randint(1, longest))] for _ in range(count)]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("groups", [1, 3])
def test_logits_and_gradient_equal_those_of_transformers(name: str, groups: int) -> None:
    architecture = ARCHITECTURES[name]
    generator = torch.Generator().manual_seed(1)
    parameters = torch.randn(parameter_count(architecture), generator=generator) * 0.15
    sequences = _sequences(9, 23)
    batch = pack(sequences, heads=architecture.heads, groups=groups)
    targets = torch.randint(VOCABULARY, batch.tokens.shape, generator=generator)
    weights = torch.rand(batch.tokens.shape, generator=generator)

    model = _model(parameters, architecture)  # float64: the reference
    logits = torch.cat([model(torch.tensor([sequences[i]])).logits[0] for i in batch.order])
    losses = functional.cross_entropy(logits, targets, reduction="none")
    losses.backward(weights.double())
    expected = to_flat({key: value.grad for key, value in model.named_parameters()}, architecture)

    engine = Engine(parameters, architecture)
    found = torch.full_like(parameters, torch.nan)
    log_probabilities = engine.gradient(batch, targets, weights, found)
    torch.testing.assert_close(engine.logits(batch).double(), logits.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_probabilities.double(), logits.detach().log_softmax(-1), atol=1e-5, rtol=1e-5)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_the_flat_buffer_holds_every_parameter_of_transformers() -> None:
    for architecture in ARCHITECTURES.values():
        model = LlamaForCausalLM(LlamaConfig(**configuration(architecture)))
        assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == parameter_shapes(architecture)
        flat = torch.arange(parameter_count(architecture), dtype=torch.float32)
        torch.testing.assert_close(to_flat(to_named(flat, architecture), architecture), flat, atol=0, rtol=0)


def test_packing_keeps_every_token_once() -> None:
    sequences = _sequences(11, 9)
    batch = pack(sequences, heads=2, groups=4)
    assert batch.tokens.tolist() == [t for i in batch.order for t in sequences[i]]
    assert batch.positions.tolist() == [p for i in batch.order for p in range(len(sequences[i]))]
    there_and_back = batch.into_heads[batch.from_heads]
    assert there_and_back.tolist() == list(range(2 * len(batch.tokens)))
