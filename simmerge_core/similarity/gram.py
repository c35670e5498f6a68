"""Inner products of all wanted pairs of checkpoints from one pass over their weights (App. B.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from simmerge_core.checkpoints.compatibility import check_compatible
from simmerge_core.checkpoints.fingerprints import fingerprint
from simmerge_core.checkpoints.folder import CheckpointFolder
from simmerge_core.checkpoints.header import TensorEntry
from simmerge_core.checkpoints.naming import layer_and_module
from simmerge_core.errors import CheckpointError
from simmerge_core.probes.one_thread import one_thread

BLOCK = 1 << 16
"""Coordinates per block: one float64 matrix product each, blocks added in order from the tensor's start."""

_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "checkpoint": pl.String,
    "other": pl.String,
    "tensor": pl.String,
    "layer": pl.Int32,
    "module": pl.String,
    "size": pl.Int64,
    "dot": pl.Float64,
    "sign_agreement": pl.Int64,
    "sign_conflict": pl.Int64,
    "checkpoint_fingerprint": pl.String,
    "other_fingerprint": pl.String,
}


def weight_gram(
    folders: Mapping[str, CheckpointFolder],
    base: CheckpointFolder,
    pairs: Sequence[tuple[str, str]],
    *,
    base_id: str | None = None,
    fingerprints: Mapping[str, str] | None = None,
    chunk: int = 1 << 20,
    device: str = "cpu",
    progress: Callable[[str, float], None] | None = None,
) -> pl.DataFrame:
    """Inner products and sign counts per tensor, from which every weight metric of App. B.3 follows.

    What is multiplied are task vectors (weights minus base, in float32), as fine-tunes of one base have cosines of
    0.999… that products of raw weights cannot resolve; products are accumulated in float64 in fixed blocks on one
    thread, so that the same weights give the same bytes. Every tensor of every folder is read once, whatever the number
    of pairs; memory is about 4 bytes · chunk and 50 bytes · ``BLOCK`` for each folder (7 MB by default).

    Parameters
    ----------
    folders
        Opened checkpoints by id; those in no pair get their own rows only.
    base
        What all of them were tuned from.
    pairs
        Unordered pairs of ids of `folders`.
    base_id
        Id of the base in the rows; its name when None.
    fingerprints
        Content hash by id, the base's included; computed, in a further read, where an id is missing.
    chunk
        Coordinates of one tensor held at a time, rounded up to a multiple of ``BLOCK``.
    device
        Where the products are computed.
    progress
        Called with a message and the fraction of the bytes done.

    Returns
    -------
    Rows of table ``weight_gram`` with its partition column ``checkpoint`` first: (a, b) for each pair, and for each
    folder c (c, c) and (c, base), and (base, base). A tied head is the embedding and has no rows.

    Raises
    ------
    CheckpointError
        A pair of an unknown id, checkpoints that do not fit the base, or weights that are not finite.
    """
    base_id = base_id or base.name
    wanted = _checked_pairs(folders, base_id, pairs)
    everything = {**folders, base_id: base}
    check_compatible([base, *folders.values()])
    known = dict(fingerprints or {})
    for name, folder in everything.items():
        if name not in known:
            known[name] = fingerprint(folder)
    layout = _Layout.of(list(everything), wanted)
    tensors = [entry for entry in base.tensors.values() if entry.is_float]
    total, done = max(1, sum(entry.size for entry in tensors)), 0
    parts: list[tuple[TensorEntry, tuple[np.ndarray, np.ndarray, np.ndarray]]] = []
    pinned = one_thread() if torch.device(device).type == "cpu" else nullcontext()
    with torch.inference_mode(), pinned:
        for entry in tensors:
            if progress is not None:
                progress(f"inner products of {entry.name}", done / total)
            width = -(-chunk // BLOCK) * BLOCK
            parts.append((entry, _tensor_sums(entry, list(everything.values()), layout, width, device)))
            done += entry.size
    if progress is not None:
        progress("inner products", 1.0)
    return _rows(parts, layout, known)


def _checked_pairs(
    folders: Mapping[str, CheckpointFolder], base_id: str, pairs: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    if base_id in folders:
        raise CheckpointError(f"The base {base_id!r} is also given as a checkpoint: leave it out of the checkpoints.")
    wanted: dict[frozenset[str], tuple[str, str]] = {}
    for pair in pairs:
        for name in pair:
            if name not in folders:
                raise CheckpointError(f"Checkpoint {name!r} is in a pair but was not opened: open its folder first.")
        if pair[0] != pair[1]:
            wanted.setdefault(frozenset(pair), pair)
    return list(wanted.values())


@dataclass(frozen=True)
class _Layout:
    """The products wanted: pairs as cells of a rectangle of rows × columns, then selves, then those with the base."""

    names: tuple[str, ...]  # the base last
    rows: np.ndarray
    columns: np.ndarray
    cells: tuple[np.ndarray, np.ndarray]
    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, names: list[str], pairs: list[tuple[str, str]]) -> _Layout:
        number = {name: index for index, name in enumerate(names)}
        rows, row = np.unique(np.array([number[a] for a, _ in pairs], dtype=np.int64), return_inverse=True)
        columns, column = np.unique(np.array([number[b] for _, b in pairs], dtype=np.int64), return_inverse=True)
        others = [(name, name) for name in names] + [(name, names[-1]) for name in names[:-1]]
        return cls(tuple(names), rows, columns, (row, column), (*pairs, *others))

    def products(self, x: Tensor) -> Tensor:
        """All wanted inner products of the rows of x (..., names, n), in the order of `pairs` -> (..., pairs)."""
        rectangle = x[..., self.rows, :] @ x[..., self.columns, :].mT
        cells = rectangle[..., self.cells[0], self.cells[1]]
        with_base = (x[..., :-1, :] @ x[..., -1, :, None])[..., 0]
        return torch.cat([cells, x.square().sum(-1), with_base], dim=-1)


def _tensor_sums(
    entry: TensorEntry, folders: list[CheckpointFolder], layout: _Layout, chunk: int, device: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inner product, coordinates of equal task-vector sign and of equal raw sign, per wanted pair."""
    dots = torch.zeros(len(layout.pairs), dtype=torch.float64, device=device)
    same = torch.zeros((2, len(layout.pairs)), dtype=torch.int64, device=device)
    for start in range(0, entry.size, chunk):
        stop = min(start + chunk, entry.size)
        weights = torch.empty((len(folders), stop - start), device=device)  # float32, the base last
        for row, folder in enumerate(folders):
            weights[row] = folder.read_chunk(entry.name, start, stop)
        for first in range(0, stop - start, BLOCK):
            raw = weights[:, first : first + BLOCK]
            vectors = raw - raw[-1]  # task vectors in float32
            vectors[-1] = raw[-1]  # the base stands for itself
            dots += layout.products(vectors.double())  # float64
            # Coordinates of equal sign: half of ⟨s, s'⟩ + ⟨|s|, |s'|⟩. Whole numbers below 2²⁴ are exact in float32.
            signs = torch.stack([vectors, raw]).sign()
            same += (layout.products(torch.cat([signs, signs.abs()], dim=-1)) / 2).long()
    sums = dots.cpu().numpy()
    if not np.isfinite(sums).all():
        culprit = next(a for (a, b), dot in zip(layout.pairs, sums, strict=True) if a == b and not np.isfinite(dot))
        raise CheckpointError(
            f"Tensor {entry.name!r} of checkpoint {culprit!r} or of its base has weights that are not finite: "
            "replace the damaged checkpoint."
        )
    return sums, same[0].cpu().numpy(), same[1].cpu().numpy()


def _rows(
    parts: list[tuple[TensorEntry, tuple[np.ndarray, np.ndarray, np.ndarray]]],
    layout: _Layout,
    fingerprints: Mapping[str, str],
) -> pl.DataFrame:
    """One row per tensor and pair, tensors in file order."""
    firsts, seconds = ([pair[side] for pair in layout.pairs] * len(parts) for side in (0, 1))
    each = len(layout.pairs)
    places = [layer_and_module(entry.name) for entry, _ in parts]
    sizes = np.repeat(np.array([entry.size for entry, _ in parts], dtype=np.int64), each)
    dots, agreement, same = (
        np.concatenate([sums[kind] for _, sums in parts]) if parts else np.zeros(0) for kind in range(3)
    )
    return pl.DataFrame(
        {
            "checkpoint": firsts,
            "other": seconds,
            "tensor": [entry.name for entry, _ in parts for _ in range(each)],
            "layer": np.repeat(np.array([layer for layer, _ in places], dtype=np.int32), each),
            "module": [module for _, module in places for _ in range(each)],
            "size": sizes,
            "dot": dots,
            "sign_agreement": agreement,
            "sign_conflict": sizes - same,
            "checkpoint_fingerprint": [fingerprints[name] for name in firsts],
            "other_fingerprint": [fingerprints[name] for name in seconds],
        },
        schema=_SCHEMA,
    )
