"""The safetensors header, read and checked without touching a weight.

Format: 8 bytes of little-endian header length N, N bytes of JSON, then the tensors' bytes. Every tensor names its
dtype, shape and [begin, end) in the data section; together they cover it without holes or overlaps.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simmerge_core.errors import CheckpointError

HEADER_LIMIT = 100_000_000  # bytes; the reference reader has the same bound

_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS = ("F32", "BF16", "F16")
"""Dtypes that are merged; all others must be the same in every checkpoint and are copied."""
DTYPE_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def item_bytes(dtype: str) -> int:
    """Bytes of one element of a safetensors dtype."""
    return _ITEM_BYTES[dtype]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor's bytes lie.

    Attributes
    ----------
    name, dtype, shape
        As in the header; dtype in safetensors' spelling, e.g. ``"BF16"``.
    file
        The shard.
    begin, end
        Absolute byte positions in `file`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether this tensor is merged (float32, bfloat16 or float16)."""
        return self.dtype in FLOATS


def read_header(file: Path, *, name: str) -> list[TensorEntry]:
    """Entries of one safetensors file in file-offset order.

    Parameters
    ----------
    name
        The checkpoint's name, for messages.

    Raises
    ------
    CheckpointError
        If the file is truncated, or its header is not valid JSON, overlaps, leaves holes, or disagrees with the
        file's length.
    """
    total = file.stat().st_size
    with file.open("rb") as handle:
        prefix = handle.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if len(prefix) < 8 or length > total - 8:
            raise CheckpointError(
                f"Checkpoint {name!r}: {file.name} is truncated ({total} bytes, shorter than its header): copy or "
                "download it again."
            )
        if length > HEADER_LIMIT:
            raise CheckpointError(
                f"Checkpoint {name!r}: {file.name} declares a header of {length} bytes: it is not a safetensors file."
            )
        raw = handle.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"Checkpoint {name!r}: {file.name} has a damaged header ({error}): copy or download it again."
        ) from error
    if not isinstance(header, dict):
        raise _damaged(name, file, "it is not a JSON object")
    header.pop("__metadata__", None)
    entries = [_entry(name, file, tensor, value, 8 + length) for tensor, value in header.items()]
    entries.sort(key=lambda e: (e.begin, e.end))
    position = 8 + length
    for entry in entries:
        if entry.begin != position:
            what = "overlaps its neighbour" if entry.begin < position else "leaves a hole before it"
            raise _damaged(name, file, f"tensor {entry.name!r} {what}")
        position = entry.end
    if position != total:
        what = "is truncated" if position > total else "has bytes after its last tensor"
        raise CheckpointError(
            f"Checkpoint {name!r}: {file.name} {what} ({total} bytes, its header promises {position}): copy or "
            "download it again."
        )
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _damaged(name: str, file: Path, why: str) -> CheckpointError:
    return CheckpointError(f"Checkpoint {name!r}: {file.name} has a damaged header ({why}): copy or download it again.")


def _entry(name: str, file: Path, tensor: str, value: Any, data: int) -> TensorEntry:
    def is_count(number: Any) -> bool:
        return isinstance(number, int) and not isinstance(number, bool) and number >= 0

    fields = value if isinstance(value, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(shape, list) or not all(map(is_count, shape)):
        raise _damaged(name, file, f"tensor {tensor!r} has no valid shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
        raise _damaged(name, file, f"tensor {tensor!r} has no valid data_offsets")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise CheckpointError(
            f"Checkpoint {name!r}: tensor {tensor!r} in {file.name} has dtype {dtype!r}, which cannot be read: "
            "convert it to float32, bfloat16 or float16."
        )
    begin, end = offsets
    if end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise _damaged(name, file, f"tensor {tensor!r} does not have the bytes that its shape and dtype need")
    return TensorEntry(tensor, dtype, tuple(shape), file, data + begin, data + end)
