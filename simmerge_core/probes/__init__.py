"""Probes (App. B.1, B.2): what a model does on unlabeled prompts, recorded once per checkpoint and task.

Names are imported on first use, so that importing this package loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmerge_core.probes.cache import cached, cached_checkpoints, is_cached, probe_path
    from simmerge_core.probes.prompts import probe_key, read_prompts
    from simmerge_core.probes.record import ProbeRecord
    from simmerge_core.probes.recording import record_probes
    from simmerge_core.probes.size import kept_layers, kept_positions, probe_bytes

_HOME = {
    "ProbeRecord": "record",
    "cached": "cache",
    "cached_checkpoints": "cache",
    "is_cached": "cache",
    "kept_layers": "size",
    "kept_positions": "size",
    "probe_bytes": "size",
    "probe_key": "prompts",
    "probe_path": "cache",
    "read_prompts": "prompts",
    "record_probes": "recording",
}

__all__ = [
    "ProbeRecord",
    "cached",
    "cached_checkpoints",
    "is_cached",
    "kept_layers",
    "kept_positions",
    "probe_bytes",
    "probe_key",
    "probe_path",
    "read_prompts",
    "record_probes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
