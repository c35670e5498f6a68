"""Refusal of NaN and infinite weights, by checkpoint and tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from simmerge_core.checkpoints.folder import CheckpointFolder
from simmerge_core.errors import CheckpointError

_CHUNK = 1 << 20  # coordinates


def all_finite(values: Tensor) -> bool:
    """Whether no coordinate is NaN or infinite.

    One reduction instead of a mask: a sum is finite only if all its terms are; an overflowing sum is looked at again.
    """
    total = values.sum(dtype=torch.float32)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(values).all())


def check_chunk(values: Tensor, *, checkpoint: str, tensor: str) -> None:
    """Raise if a chunk of a floating-point tensor holds NaN or infinity."""
    if values.is_floating_point() and not all_finite(values):
        raise CheckpointError(
            f"Checkpoint {checkpoint!r}: tensor {tensor!r} holds NaN or infinite values: its training diverged or "
            "its file is "
            "damaged; leave it out or fetch it again."
        )


def check_finite(folder: CheckpointFolder) -> None:
    """Read every weight in chunks and refuse NaN, infinity, and a tied head that is not its embedding.

    Raises
    ------
    CheckpointError
        Naming the checkpoint and the tensor.
    """
    for name, entry in folder.tensors.items():
        for start in range(0, entry.size, _CHUNK):
            check_chunk(
                folder.read_chunk(name, start, min(start + _CHUNK, entry.size)), checkpoint=folder.name, tensor=name
            )
    check_tied_copies(folder)


def check_tied_copies(folder: CheckpointFolder) -> None:
    """Refuse a checkpoint that says its head is tied but stores a head that differs from the embedding."""
    from simmerge_core.checkpoints.folder import embedding_names

    for head, entry in folder.tied_copies.items():
        embedding = folder.tensors[embedding_names(folder.tensors)[0]]
        same = entry.shape == embedding.shape and entry.dtype == embedding.dtype
        for start in range(0, entry.size if same else 0, _CHUNK):
            stop = min(start + _CHUNK, entry.size)
            same = same and torch.equal(
                folder.read_chunk(head, start, stop), folder.read_chunk(embedding.name, start, stop)
            )
        if not same:
            raise CheckpointError(
                f"Checkpoint {folder.name!r}: config.json ties the head to the embedding, but {head!r} differs from "
                f"{embedding.name!r}: set tie_word_embeddings to false."
            )
