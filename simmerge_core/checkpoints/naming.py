"""Where a tensor belongs, read from its name: transformer block and kind of module (App. B.3)."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
# Tried in this order: a norm inside an attention module is a norm, an embedding's norm too.
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("norm", re.compile(r"norm|(?:^|\.)ln_?\w*\.", re.IGNORECASE)),
    ("head", re.compile(r"(?:^|\.)(?:lm_head|embed_out|output_projection|score|classifier)(?:\.|$)")),
    ("embedding", re.compile(r"emb|(?:^|\.)(?:wte|wpe)\.")),
    ("attention", re.compile(r"attn|attention")),
    ("mlp", re.compile(r"mlp|feed_forward|ffn|experts|(?:^|\.)(?:fc|dense|gate|up|down|w)_?\w*\.")),
)


def layer_and_module(tensor_name: str) -> tuple[int, str]:
    """Transformer block and module kind of a tensor (App. B.3).

    Parameters
    ----------
    tensor_name
        As in the safetensors header, e.g. ``model.layers.3.self_attn.q_proj.weight``.

    Returns
    -------
    tuple[int, str]
        Block index (-1 outside the blocks) and one of ``attention``, ``mlp``, ``norm``, ``embedding``, ``head``.
        A name that says nothing counts as ``mlp`` inside a block and as ``head`` outside.
    """
    block = _BLOCK.search(tensor_name)
    layer = int(block.group(1)) if block else -1
    for kind, pattern in _KINDS:
        if pattern.search(tensor_name):
            return layer, kind
    return layer, "mlp" if block else "head"
