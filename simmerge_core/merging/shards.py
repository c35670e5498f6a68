"""Output shards: headers first, then every block at its final place, written and hashed beside the computation."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from simmerge_core.checkpoints.folder import INDEX, SINGLE
from simmerge_core.checkpoints.header import TensorEntry, item_bytes
from simmerge_core.files import write_json

_AHEAD = 4  # blocks that may wait for the writer


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor to be written: its input entry and its output dtype (safetensors' spelling)."""

    entry: TensorEntry
    dtype: str

    @property
    def bytes(self) -> int:
        """Bytes in the output."""
        return self.entry.size * item_bytes(self.dtype)


def split_into_shards(tensors: Sequence[OutputTensor], *, limit: int) -> list[list[OutputTensor]]:
    """Tensors in the order given, cut where a shard would exceed `limit` bytes; a larger tensor has its own shard.

    Within a shard wider dtypes come first, so that every tensor is aligned to its element size.
    """
    shards: list[list[OutputTensor]] = []
    filled = 0
    for tensor in tensors:
        if not shards or filled + tensor.bytes > limit:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.bytes
    return [sorted(shard, key=lambda t: -item_bytes(t.dtype)) for shard in shards]


def shard_name(position: int, count: int) -> str:
    """File name of a shard, as transformers expects it."""
    return SINGLE if count == 1 else f"model-{position + 1:05d}-of-{count:05d}.safetensors"


def write_index(folder: Path, shards: Sequence[Sequence[OutputTensor]]) -> None:
    """The index of a sharded checkpoint; nothing for a single file."""
    if len(shards) == 1:
        return
    weight_map = {t.entry.name: shard_name(i, len(shards)) for i, shard in enumerate(shards) for t in shard}
    write_json(
        folder / INDEX, {"metadata": {"total_size": sum(t.bytes for s in shards for t in s)}, "weight_map": weight_map}
    )


def header_of(tensors: Sequence[OutputTensor]) -> bytes:
    """The safetensors header, padded with spaces to 8 bytes."""
    fields: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        end = position + tensor.bytes
        fields[tensor.entry.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.entry.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(fields, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


class ShardWriter:
    """Writes one shard from a thread of its own; at most a few blocks wait, so memory stays bounded.

    Use as a context; a failed write is raised by the next `write`, or at the end.
    """

    def __init__(self, file: Path, tensors: Sequence[OutputTensor]) -> None:
        self._file = file
        self._header = header_of(tensors)
        self._total = len(self._header) + sum(t.bytes for t in tensors)
        self._queue: queue.Queue[tuple[str, memoryview] | None] = queue.Queue(_AHEAD)
        self._failure: BaseException | None = None
        self._digests = {t.entry.name: hashlib.sha256() for t in tensors}
        self._thread = threading.Thread(target=self._drain, name=f"write {file.name}", daemon=True)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 (hex) of each tensor's bytes, after the end of the context."""
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def __enter__(self) -> ShardWriter:
        self._handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.truncate(self._handle, self._total)  # shapes are known, so every offset is final from the start
            os.pwrite(self._handle, self._header, 0)
        except OSError:
            os.close(self._handle)
            raise
        self._position = len(self._header)
        self._thread.start()
        return self

    def write(self, tensor: str, data: memoryview) -> None:
        """Append the next block; blocks come in the header's order. `data` must not be changed afterwards."""
        if self._failure is not None:
            raise self._failure
        self._queue.put((tensor, data))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        os.close(self._handle)
        if error is None and self._failure is not None:
            raise self._failure

    def _drain(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._failure is not None:
                continue  # keep emptying the queue, so that the merge never waits for a writer that has failed
            tensor, data = item
            try:
                self._digests[tensor].update(data)
                while data:
                    written = os.pwrite(self._handle, data, self._position)
                    data, self._position = data[written:], self._position + written
            except OSError as error:
                self._failure = error
