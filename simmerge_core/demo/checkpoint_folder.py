"""Write a trained flat buffer as a Hugging Face folder, and read it back."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from simmerge_core.demo.layout import to_flat, to_named
from simmerge_core.demo.presets import Architecture
from simmerge_core.demo.recipes import Recipe
from simmerge_core.demo.tokenizer import END_ID, VOCABULARY, write_tokenizer
from simmerge_core.files import replaced_folder

RECIPE_FILE = "recipe.json"


def configuration(architecture: Architecture) -> dict[str, object]:
    """Values of config.json (`LlamaConfig`, untied)."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": END_ID,
        "eos_token_id": END_ID,
        "pad_token_id": END_ID,
        "dtype": "float32",
        "head_dim": architecture.hidden // architecture.heads,
        "hidden_act": "silu",
        "hidden_size": architecture.hidden,
        "initializer_range": architecture.initial_std,
        "intermediate_size": architecture.mlp,
        "max_position_embeddings": architecture.positions,
        "mlp_bias": False,
        "num_attention_heads": architecture.heads,
        "num_hidden_layers": architecture.layers,
        "num_key_value_heads": architecture.heads,
        "pretraining_tp": 1,
        "rms_norm_eps": architecture.norm_eps,
        "rope_parameters": {"rope_theta": architecture.rope_theta, "rope_type": "default"},
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": VOCABULARY,
    }


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_checkpoint(folder: Path, parameters: Tensor, recipe: Recipe, *, fingerprint: str) -> None:
    """Write the complete folder beside `folder` and rename it into place."""
    with replaced_folder(folder) as temporary:
        tensors = {
            name: value.contiguous().clone() for name, value in to_named(parameters, recipe.architecture).items()
        }
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        _write(temporary / "config.json", configuration(recipe.architecture))
        _write(
            temporary / "generation_config.json",
            {"bos_token_id": END_ID, "eos_token_id": END_ID, "pad_token_id": END_ID, "do_sample": False},
        )
        write_tokenizer(temporary, positions=recipe.architecture.positions)
        _write(temporary / RECIPE_FILE, {"fingerprint": fingerprint, "recipe": recipe.as_dict()})


def read_parameters(folder: Path, architecture: Architecture) -> Tensor:
    """Flat float32 buffer of a folder that `write_checkpoint` wrote."""
    return to_flat(load_file(folder / "model.safetensors"), architecture)


def is_finished(folder: Path, fingerprint: str) -> bool:
    """Whether `folder` holds a complete checkpoint of exactly this recipe (folders appear only when complete)."""
    try:
        recorded = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return recorded.get("fingerprint") == fingerprint and (folder / "model.safetensors").is_file()
