"""Tables of the data contract: definitions, validation, and the data root that holds them."""

from simmerge_core.tables.definitions import (
    CHECKPOINTS,
    FUNCTIONAL_SIMILARITY,
    MERGE_LABELS,
    MERGE_OUTCOMES,
    MERGE_PLANS,
    PAIRWISE_FEATURES,
    PLAN_LABELS,
    STANDALONE_SCORES,
    TABLES,
    WEIGHT_GRAM,
)
from simmerge_core.tables.schema import Column, Table
from simmerge_core.tables.store import DataRoot

__all__ = [
    "CHECKPOINTS",
    "FUNCTIONAL_SIMILARITY",
    "MERGE_LABELS",
    "MERGE_OUTCOMES",
    "MERGE_PLANS",
    "PAIRWISE_FEATURES",
    "PLAN_LABELS",
    "STANDALONE_SCORES",
    "TABLES",
    "WEIGHT_GRAM",
    "Column",
    "DataRoot",
    "Table",
]
