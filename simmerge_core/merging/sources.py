"""Input checkpoints as readers of float32 blocks, checked for NaN as they pass."""

from __future__ import annotations

import contextlib
import os

from torch import Tensor

from simmerge_core.checkpoints.finite import check_chunk
from simmerge_core.checkpoints.folder import CheckpointFolder

KEPT_BYTES = 16 << 20
"""Inputs of a tensor are kept between passes where all of them need no more; larger ones are read again."""


class TensorSource:
    """One checkpoint's tensor, read as float32 blocks on `device`.

    Parameters
    ----------
    keep
        Whether blocks stay in memory for the next pass.
    """

    def __init__(self, folder: CheckpointFolder, name: str, *, device: str, keep: bool) -> None:
        self._folder = folder
        self._name = name
        self._device = device
        self._kept: dict[int, Tensor] | None = {} if keep else None
        self._checked = 0  # coordinates seen to be finite; passes go in order

    def __call__(self, start: int, stop: int) -> Tensor:
        """Flat coordinates [start, stop), float32."""
        if self._kept is not None and start in self._kept:
            return self._kept[start]
        values = self._folder.read_chunk(self._name, start, stop)
        if start >= self._checked:
            check_chunk(values, checkpoint=self._folder.name, tensor=self._name)
            self._checked = stop
        block = values.to(self._device).float()
        if self._kept is not None:
            self._kept[start] = block
        return block


def read_ahead(folder: CheckpointFolder, name: str) -> None:
    """Tell the kernel that a tensor will be read next."""
    entry = folder.tensors[name]
    with contextlib.suppress(OSError, AttributeError):  # advice only; some file systems take none
        handle = os.open(entry.file, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, entry.begin, entry.end - entry.begin, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(handle)
