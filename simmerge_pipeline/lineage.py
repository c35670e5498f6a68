"""Which columns a table's columns are computed from, as Dagster shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from simmerge_core.features.columns import FEATURES, STATISTICS
from simmerge_core.tables import (
    BANDIT_ROUNDS,
    FUNCTIONAL_SIMILARITY,
    MERGE_OUTCOMES,
    MERGE_PLANS,
    PAIRWISE_FEATURES,
    WEIGHT_GRAM,
    Table,
)
from simmerge_pipeline.plain_metadata import table as table_of
from simmerge_pipeline.sentences import some

Sources = Mapping[str, Sequence[tuple[Table, Sequence[str]]]]
"""Tables and their columns that each column is computed from."""

_SHOWN = 6  # names in a cell
_BEHAVIOUR = ("kl", "activation", "attention", "self")
_SUMMARIES = (FUNCTIONAL_SIMILARITY, STATISTICS)
_PRODUCTS = (WEIGHT_GRAM, ("dot", "sign_agreement", "sign_conflict", "size"))


def _features() -> Sources:
    """Behaviour comes from probe outputs, everything else from inner products of weights."""
    own: Sources = {c.name: [_SUMMARIES if c.group in _BEHAVIOUR else _PRODUCTS] for c in FEATURES}
    return {"a": [(FUNCTIONAL_SIMILARITY, ["a"])], "b": [(FUNCTIONAL_SIMILARITY, ["b"])], **own}


def _plans() -> Sources:
    read: Sequence[tuple[Table, Sequence[str]]] = [(PAIRWISE_FEATURES, [c.name for c in FEATURES])]
    return dict.fromkeys(("order", "actions", "predicted_utility", "uncertainty"), read)


def _rounds() -> Sources:
    return {
        "reward": [(MERGE_OUTCOMES, ["utility"])],
        "evaluation_key": [(MERGE_OUTCOMES, ["evaluation_key"])],
        "merged": [(MERGE_PLANS, ["order"])],
        "action": [(MERGE_PLANS, ["actions"])],
    }


_OF = {PAIRWISE_FEATURES.name: _features, MERGE_PLANS.name: _plans, BANDIT_ROUNDS.name: _rounds}


def lineage_metadata(table: Table) -> Mapping[str, Any]:
    """Column lineage of a table, where its columns come from those of others; empty otherwise.

    Dagster's own entry is for programs and for other viewers: its open-source UI does not show it, so there is a
    table for people beside it.
    """
    if table.name not in _OF:
        return {}
    deps = {
        column: [
            dg.TableColumnDep(asset_key=dg.AssetKey(source.name), column_name=name)
            for source, names in sources
            for name in names
        ]
        for column, sources in _OF[table.name]().items()
    }
    return {
        "dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps),
        "column lineage": table_of(("columns", "computed from"), _told(_OF[table.name]())),
    }


def _told(sources: Sources) -> list[tuple[str, str]]:
    """Columns that come from the same columns, together."""
    together: dict[str, list[str]] = {}
    for column, read in sources.items():
        text = "; ".join(f"{source.name}: {some(names, _SHOWN)}" for source, names in read)
        together.setdefault(text, []).append(column)
    return [(some(columns, _SHOWN), text) for text, columns in together.items()]
