"""Safetensors dtypes as torch dtypes, and tensors as bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from simmerge_core.errors import MergeError

_TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_STORAGE = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of a safetensors dtype."""
    return _TORCH[dtype]


def storage_dtype(dtype: str | torch.dtype) -> str:
    """The safetensors dtype of an output dtype.

    Raises
    ------
    MergeError
        If it is not float32, bfloat16 or float16.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in _STORAGE:
        raise MergeError(f"Output dtype {name!r} is not supported: use float32, bfloat16 or float16.")
    return _STORAGE[name]


def writable_bytes(values: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor as bytes, shared."""
    return values.reshape(-1).view(torch.uint8).numpy().data
