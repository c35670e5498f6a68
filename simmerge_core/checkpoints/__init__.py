"""Checkpoints: Hugging Face folders of safetensors, opened by header, read in chunks, hashed by content."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.checkpoints.compatibility import check_compatible
    from simmerge_core.checkpoints.fingerprints import fingerprint
    from simmerge_core.checkpoints.finite import check_finite
    from simmerge_core.checkpoints.folder import CheckpointFolder, open_checkpoint
    from simmerge_core.checkpoints.header import TensorEntry
    from simmerge_core.checkpoints.hub import resolve
    from simmerge_core.checkpoints.manifests import manifest
    from simmerge_core.checkpoints.models import load_model
    from simmerge_core.checkpoints.naming import layer_and_module

_HOMES = {
    "CheckpointFolder": "folder",
    "TensorEntry": "header",
    "check_compatible": "compatibility",
    "check_finite": "finite",
    "fingerprint": "fingerprints",
    "layer_and_module": "naming",
    "load_model": "models",
    "manifest": "manifests",
    "open_checkpoint": "folder",
    "resolve": "hub",
}

__all__ = [
    "CheckpointFolder",
    "TensorEntry",
    "check_compatible",
    "check_finite",
    "fingerprint",
    "layer_and_module",
    "load_model",
    "manifest",
    "open_checkpoint",
    "resolve",
]


def __getattr__(name: str) -> Any:
    # PEP 562: torch, polars and transformers are imported by what needs them, not by `import simmerge_core`.
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
