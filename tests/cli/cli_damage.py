"""Ways in which a checkpoint folder can be broken, each as a function of the folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def missing(folder: Path) -> None:
    shutil.rmtree(folder)


def pickled_only(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def not_a_number(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 2] = torch.nan
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def smaller_vocabulary(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    _configure(folder, vocab_size=len(tensors["lm_head.weight"]))


def other_shapes(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    for name in list(tensors):
        if "gate_proj" in name or "up_proj" in name:
            tensors[name] = tensors[name][:-4].contiguous()
        if "down_proj" in name:
            tensors[name] = tensors[name][:, :-4].contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    _configure(folder, intermediate_size=len(tensors["model.layers.0.mlp.up_proj.weight"]))


def _configure(folder: Path, **values: int) -> None:
    import json

    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | values), "utf-8")


# What the one sentence must name, besides the checkpoint.
DAMAGES = {
    missing: "does not exist",
    pickled_only: "pickled weights",
    truncated: WEIGHTS,
    not_a_number: "model.layers.1.mlp.up_proj.weight",
    smaller_vocabulary: "vocabular",
    other_shapes: "shapes",
}
