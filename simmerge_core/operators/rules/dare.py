"""DARE: drop coordinates of each task vector at random, rescale the rest, add (Yu et al. 2024).

A coordinate of Δ is kept with probability `density` and divided by it; the result is base + 2λ ((1 − α) Δa' + α Δb').
The draw is a counter-based hash of (seed, tensor name, a checksum of the checkpoint's tensor, coordinate): independent
between checkpoints, the same in any block or thread, and the same whether a checkpoint comes first or second.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from simmerge_core.operators.operator import Block, Operator, Parameter, Pass, Setting

if TYPE_CHECKING:
    from torch import Tensor

_DRAW_BITS = 24
_WORD = 1 << 64


def _checksums(block: Block, setting: Setting, known: Any) -> Tensor:
    import torch

    return torch.stack([x.view(torch.int32).sum(dtype=torch.int64) for x in (block.a, block.b)])  # (2,) int64


def _keys(total: Tensor, setting: Setting, known: Any) -> tuple[int, ...]:
    seed = int(setting.params["seed"])
    texts = (f"{seed}\0{setting.tensor}\0{checksum}" for checksum in total.tolist())
    return tuple(int.from_bytes(hashlib.sha256(t.encode()).digest()[:8], "little", signed=True) for t in texts)


def _signed(word: int) -> int:
    """A 64-bit pattern as torch's int64 holds it."""
    return word - _WORD if word >= _WORD // 2 else word


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def draws(key: int, start: int, count: int, *, like: Tensor) -> Tensor:
    """Uniform integers in [0, 2**24) for coordinates [start, start + count): the SplitMix64 finaliser of a counter."""
    import torch

    x = torch.arange(start, start + count, dtype=torch.int64, device=like.device)
    x = x * _signed(0x9E3779B97F4A7C15) + key  # int64 wraps, as the hash wants
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(x ^ _shifted(x, 31), 64 - _DRAW_BITS)


def _combine(block: Block, setting: Setting, known: tuple[int, int]) -> Tensor:
    base, density = block.origin, setting.params["density"]
    scale = 2.0 * setting.params["lam"] / density
    limit = density * (1 << _DRAW_BITS)
    merged = None
    for values, key, weight in zip((block.a, block.b), known, (1.0 - setting.alpha, setting.alpha), strict=True):
        keep = draws(key, block.start, values.numel(), like=values) < limit
        change = (values - base).mul_(scale * weight).mul_(keep)
        merged = change if merged is None else merged.add_(change)
    assert merged is not None
    return merged.add_(base)


OPERATOR = Operator(
    name="dare",
    summary="base plus task vectors with coordinates dropped at random and the rest rescaled",
    citation="Yu et al. 2024, Language models are super Mario, arXiv:2311.03099",
    combine=_combine,
    passes=(Pass(_checksums, _keys),),
    needs_base=True,
    params={
        "density": Parameter(0.5, 0.01, 1.0, "probability that a coordinate of a task vector is kept"),
        "lam": Parameter(0.5, 0.0, 2.0, "weight of each task vector at alpha 1/2"),
        "seed": Parameter(0.0, 0.0, 1e9, "seed of the draws, a whole number"),
    },
    mergekit="dare_linear",
    mergekit_note="mergekit draws other random numbers",
)
