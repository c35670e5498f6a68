"""Synthetic probe records, and folders of random weights around a common base."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from simmerge_core.catalog import ProbeSettings
from simmerge_core.checkpoints import CheckpointFolder, open_checkpoint
from simmerge_core.probes import ProbeRecord

LENGTHS = (4, 1, 6, 4, 3)
SHAPES = {
    "model.embed_tokens.weight": (7, 6),
    "model.layers.0.self_attn.q_proj.weight": (6, 6),
    "model.layers.0.mlp.up_proj.weight": (9, 6),
    "model.layers.0.input_layernorm.weight": (6,),
    "model.layers.1.self_attn.q_proj.weight": (6, 6),
    "model.layers.1.mlp.up_proj.weight": (9, 6),
    "model.layers.1.input_layernorm.weight": (6,),
    "model.norm.weight": (6,),
    "lm_head.weight": (7, 6),
}


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_record() -> Callable[..., ProbeRecord]:
    """make_record(seed, top=None): 5 prompts, 2 layers of width 3 with 2 heads, 11 tokens; deterministic by seed."""

    def make(seed: int, *, top: int | None = None, spread: float = 1.0) -> ProbeRecord:
        generator = torch.Generator().manual_seed(seed)
        rows, packed = sum(LENGTHS), sum(n * (n + 1) // 2 for n in LENGTHS)
        logprobs = torch.log_softmax(spread * torch.randn((rows, 11), generator=generator), -1)
        distribution: dict[str, Tensor] = {"logprobs": logprobs}
        if top is not None:
            ids = logprobs.topk(top, -1).indices.sort(-1).values
            distribution = {
                "top_ids": ids.int(),
                "top_logprobs": logprobs.gather(1, ids),
                "tail_logprobs": logprobs.scatter(1, ids, -torch.inf).logsumexp(-1),
            }
        return ProbeRecord(
            settings=ProbeSettings(count=len(LENGTHS), top_logits=top),
            layers=(0, 1),
            vocabulary=11,
            tokens=torch.arange(rows, dtype=torch.int32),
            lengths=torch.tensor(LENGTHS, dtype=torch.int32),
            hidden=torch.randn((2, rows, 3), generator=generator),
            attention=torch.rand((2, 2, packed), generator=generator),
            nll=torch.rand(len(LENGTHS), generator=generator, dtype=torch.float64),
            entropy=torch.rand(len(LENGTHS), generator=generator, dtype=torch.float64),
            last_entropy=torch.rand(len(LENGTHS), generator=generator, dtype=torch.float64),
            fingerprint=f"content-{seed}",
            probe_key="key",
            **distribution,
        )

    return make


def write_folder(path: Path, weights: dict[str, Tensor], *, tied: bool = False) -> CheckpointFolder:
    """A checkpoint folder with these tensors."""
    path.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 6,
        "vocab_size": 7,
        "tie_word_embeddings": tied,
    }
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return open_checkpoint(path, name=path.name)


@pytest.fixture
def write_checkpoint() -> Callable[..., CheckpointFolder]:
    return write_folder


def random_weights(seed: int) -> dict[str, Tensor]:
    """Weights of `SHAPES`, standard normal float32."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.fixture
def base_weights() -> dict[str, Tensor]:
    return random_weights(0)


@pytest.fixture
def tuned_weights(base_weights: dict[str, Tensor]) -> Callable[..., dict[str, Tensor]]:
    """tuned_weights(seed, size): the base plus `size` times random weights."""

    def tune(seed: int, size: float = 0.3) -> dict[str, Tensor]:
        change = random_weights(seed)
        return {name: base_weights[name] + size * change[name] for name in SHAPES}

    return tune
