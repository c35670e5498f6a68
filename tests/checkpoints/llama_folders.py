"""Tiny Llama folders written with the safetensors library, for tests of checkpoints and merging."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

VOCABULARY, WIDTH, LAYERS = 24, 8, 2

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": 12,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-6,
}

Change = Callable[[dict[str, torch.Tensor]], object]
Maker = Callable[..., Path]


def llama_weights(seed: int, *, tied: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    weights = {"model.embed_tokens.weight": normal(VOCABULARY, WIDTH), "model.norm.weight": normal(WIDTH)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weights[f"{prefix}.self_attn.{name}.weight"] = normal(WIDTH, WIDTH)
        weights[f"{prefix}.mlp.gate_proj.weight"] = normal(12, WIDTH)
        weights[f"{prefix}.mlp.up_proj.weight"] = normal(12, WIDTH)
        weights[f"{prefix}.mlp.down_proj.weight"] = normal(WIDTH, 12)
        weights[f"{prefix}.input_layernorm.weight"] = normal(WIDTH)
        weights[f"{prefix}.post_attention_layernorm.weight"] = normal(WIDTH)
    if not tied:
        weights["lm_head.weight"] = normal(VOCABULARY, WIDTH)
    return weights


def tokenizer_json(size: int = VOCABULARY) -> dict[str, object]:
    vocab = {"<unk>": 0} | {chr(96 + i): i for i in range(1, size)}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    }  # fmt: skip


def write_checkpoint(
    folder: Path,
    weights: dict[str, torch.Tensor],
    *,
    shards: int = 1,
    tokenizer: bool = True,
    **config: object,
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    names = list(weights)
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        weight_map = {}
        for i in range(shards):
            file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            part = {n: weights[n] for n in names[i::shards]}
            save_file(part, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    if tokenizer:
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"})
        )
        (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": 5}))
    return folder


def maker_in(root: Path) -> Maker:
    """make("a", seed=1, dtype=…, shards=…, tied=…, change=…, **config) → the folder of a tiny Llama under `root`."""

    def make(
        name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, shards: int = 1, tied: bool = False,
        tokenizer: bool = True, change: Change | None = None, **config: object,
    ) -> Path:  # fmt: skip
        weights = {n: t.to(dtype) for n, t in llama_weights(seed, tied=tied).items()}
        if change is not None:
            change(weights)
        config = {"tie_word_embeddings": tied, **config}
        return write_checkpoint(root / name, weights, shards=shards, tokenizer=tokenizer, **config)

    return make
