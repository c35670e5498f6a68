"""Token sequences without padding, and the index tables by which attention alone is padded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionGroup:
    """Sequences of like length that attend together, padded on the right to one length.

    A causal mask keeps right padding out of every real token's sight, so padded places need only be finite.
    """

    rows: slice  # its part of the laid-out rows, B * heads * T of them
    sequences: int  # B
    length: int  # T


@dataclass(frozen=True)
class Packed:
    """A batch of N real tokens, its sequences sorted by length (stable)."""

    tokens: Tensor  # (N,) int64
    positions: Tensor  # (N,) int64
    order: tuple[int, ...]  # the i-th packed sequence is input sequence order[i]
    groups: tuple[AttentionGroup, ...]
    into_heads: Tensor  # (R,) int64: packed row n * heads + h of each laid-out row (b, h, t); N * heads where padded
    from_heads: Tensor  # (N * heads,) int64: laid-out row of each packed row
    into_qkv: Tensor  # (3 * R,) int64: the same for packed rows n * 3 * heads + h of queries, keys, values in turn
    from_qkv: Tensor  # (N * 3 * heads,) int64


def pack(sequences: Sequence[Sequence[int]], *, heads: int, groups: int = 3) -> Packed:
    """Pack non-empty token sequences; attention pads within at most `groups` groups of like length."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    lengths = torch.tensor([len(sequences[i]) for i in order])
    tokens = torch.tensor([token for i in order for token in sequences[i]])
    starts = lengths.cumsum(0) - lengths
    positions = torch.arange(len(tokens)) - starts.repeat_interleave(lengths)
    edges = sorted({round(len(order) * g / groups) for g in range(groups + 1)})
    head = torch.arange(heads)[None, :, None]
    laid, found, first = [], [], 0
    for start, end in itertools.pairwise(edges):
        padded = int(lengths[end - 1])
        time = torch.arange(padded)[None, :]
        real = time < lengths[start:end, None]  # (B, T)
        packed_row = torch.where(real, starts[start:end, None] + time, len(tokens))[:, None, :]  # (B, 1, T)
        into = torch.where(packed_row < len(tokens), packed_row * heads + head, len(tokens) * heads)  # (B, heads, T)
        found.append(AttentionGroup(slice(first, first + into.numel()), end - start, padded))
        laid.append(into.reshape(-1))
        first += into.numel()
    into_heads = torch.cat(laid)
    from_heads = torch.empty(len(tokens) * heads + 1, dtype=torch.int64)
    from_heads[into_heads] = torch.arange(len(into_heads))
    from_heads = from_heads[:-1].contiguous()
    part = torch.arange(3)
    padding = into_heads == len(tokens) * heads
    row = into_heads // heads * 3 * heads + into_heads % heads
    into_qkv = torch.where(padding, 3 * heads * len(tokens), row + heads * part[:, None])  # (3, R)
    from_qkv = from_heads.view(-1, 1, heads) + len(into_heads) * part[:, None]  # (N, 3, heads)
    return Packed(
        tokens, positions, tuple(order), tuple(found), into_heads, from_heads, into_qkv.view(-1), from_qkv.view(-1)
    )
