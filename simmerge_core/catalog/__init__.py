"""The catalog: declared checkpoints, tasks and merge requests of one base."""

from simmerge_core.catalog.load import load_catalog
from simmerge_core.catalog.model import (
    Benchmark,
    Catalog,
    CheckpointEntry,
    Discovery,
    LabelDesign,
    LeftOut,
    MergeRequest,
    ProbeSettings,
    Task,
)

__all__ = [
    "Benchmark",
    "Catalog",
    "CheckpointEntry",
    "Discovery",
    "LabelDesign",
    "LeftOut",
    "MergeRequest",
    "ProbeSettings",
    "Task",
    "load_catalog",
]
