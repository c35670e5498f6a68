"""The flat parameter buffer that training works on, and its translation to Hugging Face names.

Two liberties are taken inside the buffer. Matrices that read the same input are neighbours, so that one product serves
query, key and value (and another the two MLP inputs). And the rows of the query and key matrices are reordered within
each head so that the two halves of a rotary pair stand side by side: the rotation is then one complex product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from simmerge_core.demo.presets import Architecture
from simmerge_core.demo.tokenizer import VOCABULARY


@cache
def parameter_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Hugging Face names and shapes in the order of the flat buffer: embedding and head first, then the layers.

    What an expert with frozen embedding and head trains is thus one contiguous slice.
    """
    hidden, mlp = architecture.hidden, architecture.mlp
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, hidden),
        "lm_head.weight": (VOCABULARY, hidden),
    }
    for layer in range(architecture.layers):
        stem = f"model.layers.{layer}"
        shapes[f"{stem}.input_layernorm.weight"] = (hidden,)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{stem}.self_attn.{name}.weight"] = (hidden, hidden)
        shapes[f"{stem}.post_attention_layernorm.weight"] = (hidden,)
        for name in ("gate_proj", "up_proj"):
            shapes[f"{stem}.mlp.{name}.weight"] = (mlp, hidden)
        shapes[f"{stem}.mlp.down_proj.weight"] = (hidden, mlp)
    shapes["model.norm.weight"] = (hidden,)
    return shapes


def parameter_count(architecture: Architecture) -> int:
    """Number of parameters, which is the length of the flat buffer."""
    return sum(torch.Size(shape).numel() for shape in parameter_shapes(architecture).values())


def embedding_parameters(architecture: Architecture) -> int:
    """Length of the flat buffer's head that holds embedding and output matrix."""
    return 2 * VOCABULARY * architecture.hidden


def _paired_rows(architecture: Architecture) -> Tensor:
    """Row order (H,) that brings Hugging Face's (i, i + D/2) rotary pairs side by side within each head."""
    width = architecture.hidden // architecture.heads
    within = torch.arange(width).view(2, width // 2).t().reshape(-1)
    return (torch.arange(architecture.heads)[:, None] * width + within).reshape(-1)


def _is_rotated(name: str) -> bool:
    return name.endswith(("q_proj.weight", "k_proj.weight"))


def to_named(flat: Tensor, architecture: Architecture) -> dict[str, Tensor]:
    """Copies of the parameters under their Hugging Face names, in Hugging Face's row order."""
    shapes = parameter_shapes(architecture)
    back = torch.argsort(_paired_rows(architecture))
    named = {}
    for (name, shape), part in zip(
        shapes.items(), flat.split([torch.Size(s).numel() for s in shapes.values()]), strict=True
    ):
        matrix = part.view(shape)
        named[name] = matrix[back] if _is_rotated(name) else matrix.clone()
    return named


def to_flat(named: dict[str, Tensor], architecture: Architecture) -> Tensor:
    """Inverse of `to_named`, in float32."""
    rows = _paired_rows(architecture)
    parts = [
        (named[name][rows] if _is_rotated(name) else named[name]).float().reshape(-1)
        for name in parameter_shapes(architecture)
    ]
    return torch.cat(parts)


@dataclass(frozen=True)
class LayerViews:
    """One decoder layer as views of the flat buffer."""

    input_norm: Tensor  # (H,)
    qkv: Tensor  # (3H, H)
    output: Tensor  # (H, H)
    mlp_norm: Tensor  # (H,)
    gate_up: Tensor  # (2M, H)
    down: Tensor  # (H, M)


@dataclass(frozen=True)
class Views:
    """The whole model (or its gradient) as views of one flat buffer."""

    embedding: Tensor  # (V, H)
    head: Tensor  # (V, H)
    layers: tuple[LayerViews, ...]
    norm: Tensor  # (H,)

    @classmethod
    def of(cls, flat: Tensor, architecture: Architecture) -> Views:
        """Cut `flat` (P,) into fused matrices, without copying."""
        hidden, mlp = architecture.hidden, architecture.mlp
        shape_of_layer = (
            (hidden,),
            (3 * hidden, hidden),
            (hidden, hidden),
            (hidden,),
            (2 * mlp, hidden),
            (hidden, mlp),
        )
        shapes = [(VOCABULARY, hidden)] * 2 + [*shape_of_layer] * architecture.layers + [(hidden,)]
        parts = flat.split([torch.Size(shape).numel() for shape in shapes])
        views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        layers = tuple(LayerViews(*views[2 + 6 * n : 8 + 6 * n]) for n in range(architecture.layers))
        return cls(views[0], views[1], layers, views[-1])
