"""A small random Llama with the demo's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

PROMPTS = ["12+3=", "reverse abc|", "x", "max 3,55,8=", "de 42:", ">>>'word'[1:3]", "upper ab|", "7*12="]


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return list(PROMPTS)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    from simmerge_core.demo.tokenizer import write_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, positions=64)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """make_model(seed, **config): 3 layers, width 16, 4 heads of which 2 key-value heads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from simmerge_core.demo.tokenizer import VOCABULARY

    def make(seed: int, **options: Any) -> Any:
        config = LlamaConfig(
            **{
                "vocab_size": VOCABULARY,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 64,
                "tie_word_embeddings": False,
                "initializer_range": 0.5,
                **options,
            }
        )
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()

    return make


@pytest.fixture(scope="session")
def model(make_model: Callable[..., Any]) -> Any:
    return make_model(0)
