"""When enough labels are new for the selectors to be trained again, which the automation waits for."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl

from simmerge_core.catalog import Catalog
from simmerge_core.errors import SimMergeError
from simmerge_core.files import hash_json, write_json
from simmerge_core.tables import ACTIVE_LABELS, MERGE_LABELS, PAIRWISE_FEATURES, DataRoot, Table
from simmerge_pipeline.arrivals import catalog_of_tick
from simmerge_pipeline.contents import fingerprints, of_present
from simmerge_pipeline.resources import DataRootResource

_TRAINED_ON = "labels.json"
_LABELS = (MERGE_LABELS, ACTIVE_LABELS)


@dataclass(frozen=True)
class LabelNews:
    """Labels (a pair on a task, of the present content of both, as scored last) now and at the last training.

    Attributes
    ----------
    now
        How many there are.
    known
        How many the selectors were trained on; None if they never were.
    new
        Those that are there now and were not then.
    needed
        New ones that a training by itself waits for.
    """

    now: int
    known: int | None
    new: int
    needed: int

    @property
    def enough(self) -> bool:
        """Whether the selectors are to be trained again."""
        return self.known is None or self.new >= self.needed


def label_keys(root: DataRoot, prints: Mapping[str, str]) -> list[str]:
    """A short hash for every label: the pair, its task, the content of both, its evaluations and its features; sorted.

    A label that is scored anew, on other items or under other actions, is another one, and so is one whose pair has
    features by other probes or another definition.
    """
    pair = ["a", "b", "task", "a_fingerprint", "b_fingerprint"]
    scored = ["evaluation_key"]
    described = ["probe_key", "feature_version"]

    def told(columns: list[str], *tables: Table) -> pl.LazyFrame:
        rows = pl.concat([root.scan(table).select(*pair, *columns).unique() for table in tables]).collect()
        rows = of_present(rows, "a", "a_fingerprint", prints).pipe(of_present, "b", "b_fingerprint", prints)
        return rows.lazy().group_by(pair).agg(pl.col(*columns).unique().sort())

    rows = told(scored, *_LABELS).join(told(described, PAIRWISE_FEATURES), on=pair, how="left").collect()
    return sorted(hash_json(list(row))[:16] for row in rows.select(*pair, *scored, *described).iter_rows())


def keep_trained_on(root: DataRoot, keys: list[str]) -> None:
    """Remember which labels the selectors have been trained on."""
    write_json(root.root / "selector" / _TRAINED_ON, keys)


def label_news(catalog: Catalog, root: DataRoot, now: list[str]) -> LabelNews:
    """Compare the labels that are there with those of the last training."""
    file = root.root / "selector" / _TRAINED_ON
    try:
        known = set(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
    except (ValueError, TypeError):  # damaged: a training writes it anew
        known = None
    if known is None:
        return LabelNews(len(now), None, len(now), 1)
    needed = max(1, math.ceil(catalog.labels.retrain_after * len(known)))
    return LabelNews(len(now), len(known), len(set(now) - known), needed)


class EnoughNewLabels(dg.AutomationCondition):
    """True when as many labels are new as `labels.retrain_after` in the catalog says, or nothing was ever trained."""

    @property
    def description(self) -> str:
        """What the UI shows beside the condition."""
        return "labels.retrain_after: enough labels are new since the selectors were trained"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """Look at the tables only if there is something to decide."""
        wanted = not context.candidate_subset.is_empty and _enough(catalog_of_tick(context.evaluation_time))
        subset = context.candidate_subset if wanted else context.get_empty_subset()
        return dg.AutomationResult(context, true_subset=subset)


def _enough(catalog: Catalog | None) -> bool:
    if catalog is None:
        return True  # the step says what is wrong
    try:
        root = DataRootResource.from_environment().root
        files = [f for t in (*_LABELS, PAIRWISE_FEATURES) for f in root.written(t)]
        state = tuple(sorted((str(file.path), file.bytes, file.version) for file in files))
        now = _keys(str(root.root), tuple(sorted(fingerprints(root, catalog).items())), state)
    except (SimMergeError, OSError):
        return True  # whatever is wrong, the step says it in a sentence
    return label_news(catalog, root, list(now)).enough


@functools.lru_cache(maxsize=4)
def _keys(root: str, prints: tuple[tuple[str, str], ...], state: Any) -> tuple[str, ...]:
    """Read again only when a file has changed: a tick comes every half minute, and waits for days."""
    return tuple(label_keys(DataRoot(root), dict(prints)))
