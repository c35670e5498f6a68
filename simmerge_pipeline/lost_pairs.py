"""Pairs that no partition holds though both of their partitions are written: only another run makes up for them.

A checkpoint leaves the catalog, or its folder cannot be read for a moment: whoever arrives meanwhile has no pair with
it, and neither partition is missing. What is on disk tells, whoever wrote it and whatever has happened.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from simmerge_core.catalog import Catalog
from simmerge_core.files import hash_json
from simmerge_core.probes import is_cached
from simmerge_core.tables import (
    FUNCTIONAL_SIMILARITY,
    MERGE_LABELS,
    PAIRWISE_FEATURES,
    WEIGHT_GRAM,
    DataRoot,
    Table,
)
from simmerge_pipeline.contents import fingerprints, held_features, held_labels, held_on_task, held_weights
from simmerge_pipeline.label_requests import designed_by_owner
from simmerge_pipeline.partitions import Cell

Pair = tuple[str, str]
Lacking = dict[str, list[str]]
"""The checkpoints that a partition is to be computed again for, by its key."""


def lost_pairs(asset: str, catalog: Catalog, root: DataRoot) -> Lacking:
    """Partitions whose computation brings the asset's lost pairs back, as few as will do; none for other assets.

    Pairs whose probe records are gone are left out: `lost_records` names those.
    """
    order = catalog.checkpoint_ids
    if asset == WEIGHT_GRAM.name:
        return _fewest(_weights(*_asked(catalog, root), _state(root, WEIGHT_GRAM)), order)
    if asset == FUNCTIONAL_SIMILARITY.name:
        by_task = {
            task: [pair for pair in pairs if all(is_cached(root, c, task) for c in pair)]
            for task, pairs in _lost_by_task(catalog, root).items()
        }
    elif asset == PAIRWISE_FEATURES.name:
        state = _state(root, FUNCTIONAL_SIMILARITY, PAIRWISE_FEATURES)
        by_task = _features(*_asked(catalog, root), state, catalog.task_ids)
    else:
        return {}
    return {
        str(Cell(c, task).key): others for task, pairs in by_task.items() for c, others in _fewest(pairs, order).items()
    }


def lost_records(catalog: Catalog, root: DataRoot) -> Lacking:
    """Probe records that are gone and that a lost pair needs, by key, with the others of those pairs."""
    found: Lacking = {}
    for task, pairs in _lost_by_task(catalog, root).items():
        for pair in pairs:
            for checkpoint, other in (pair, pair[::-1]):
                if not is_cached(root, checkpoint, task):
                    found.setdefault(str(Cell(checkpoint, task).key), []).append(other)
    return found


def lost_labels(catalog: Catalog, root: DataRoot) -> Lacking:
    """Partitions of labels that were written before the features of pairs which they are to label.

    A design that has changed since is another matter, and left to a backfill.
    """
    features, labels = ({f.path: f for f in root.written(t)} for t in (PAIRWISE_FEATURES, MERGE_LABELS))
    cells = {
        Cell(**keys) for keys in root.partitions(MERGE_LABELS)
        if keys["checkpoint"] in catalog.checkpoint_ids and keys["task"] in catalog.task_ids
    }  # fmt: skip
    older = {
        c for c in cells
        if (read := features.get(root.path(PAIRWISE_FEATURES, **c._asdict()))) is not None
        and (own := labels.get(root.path(MERGE_LABELS, **c._asdict()))) is not None
        and own.seconds < read.seconds
    }  # fmt: skip
    if not older:
        return {}
    found: Lacking = {}
    prints = fingerprints(root, catalog)
    labelled = {(frozenset((a, b)), task) for a, b, task in held_labels(root, prints)}
    designed = designed_by_owner(catalog, root, prints, sorted(older))
    for cell in sorted(older):
        for a, b in designed[str(cell.key)].select("a", "b").iter_rows():
            other = b if a == cell.checkpoint else a
            # Who is not labelled at all finds the pair when it is.
            if (frozenset((a, b)), cell.task) not in labelled and Cell(other, cell.task) in cells:
                found.setdefault(str(cell.key), []).append(other)
    return found


def attempts(table: Table, lacking: Lacking, root: DataRoot) -> dict[str, str]:
    """A name by key for what a partition lacks: another one once a run has written it, or what it lacks."""
    versions = {file.path: file.version for file in root.written(table)}
    names = {}
    for key, others in lacking.items():
        owner, _, task = key.partition("|")
        paths = [root.path(table, **dict(zip(table.partition, (c, task), strict=False))) for c in (owner, *others)]
        names[key] = hash_json([[str(path), versions.get(path)] for path in paths])[:16]
    return names


def _fewest(pairs: Iterable[Pair], order: Iterable[str]) -> Lacking:
    """Few checkpoints that are in every pair: who lacks most comes first, and of equals the one declared last."""
    lacking: dict[str, set[str]] = {c: set() for c in order}
    for a, b in pairs:
        lacking[a].add(b)
        lacking[b].add(a)
    found: Lacking = {}
    while any(lacking.values()):
        worst = max(reversed(lacking), key=lambda c: len(lacking[c]))
        found[worst] = sorted(lacking.pop(worst))
        for other in found[worst]:
            lacking[other].discard(worst)
    return found


def _without(held: Iterable[Pair], written: Iterable[str]) -> list[Pair]:
    """Pairs a < b of written partitions that none of them holds, sorted."""
    known, ids = {tuple(sorted(pair)) for pair in held}, sorted(set(written))
    return [(a, b) for n, a in enumerate(ids) for b in ids[n + 1 :] if (a, b) not in known]


def _lost_by_task(catalog: Catalog, root: DataRoot) -> dict[str, list[Pair]]:
    return _behaviour(*_asked(catalog, root), _state(root, FUNCTIONAL_SIMILARITY), catalog.task_ids)


@functools.lru_cache(maxsize=4)
def _weights(place: str, base: str, prints: tuple[Pair, ...], state: Any) -> list[Pair]:
    """Read again only when a file has changed, as the others here: the sensor asks every half minute."""
    root, known = DataRoot(place), dict(prints)
    alone = pl.col("checkpoint") == pl.col("other")
    rows = root.scan(WEIGHT_GRAM).filter(alone).select("checkpoint", "checkpoint_fingerprint").unique().collect()
    return _without(held_weights(root, known), _present(rows, known) - {base})


@functools.lru_cache(maxsize=4)
def _behaviour(
    place: str, base: str, prints: tuple[Pair, ...], state: Any, tasks: tuple[str, ...]
) -> dict[str, list[Pair]]:
    root, known = DataRoot(place), dict(prints)
    alone = (pl.col("a") == pl.col("b")) & (pl.col("a") == pl.col("checkpoint"))
    rows = root.scan(FUNCTIONAL_SIMILARITY).filter(alone).select("task", "a", "a_fingerprint").unique().collect()
    written = {task: _present(rows.filter(pl.col("task") == task).drop("task"), known) - {base} for task in tasks}
    return {task: _without(held_on_task(root, task, known), written[task]) for task in tasks}


@functools.lru_cache(maxsize=4)
def _features(
    place: str, base: str, prints: tuple[Pair, ...], state: Any, tasks: tuple[str, ...]
) -> dict[str, list[Pair]]:
    root, known, found = DataRoot(place), dict(prints), {}
    partitions = root.partitions(PAIRWISE_FEATURES)
    for task in tasks:
        written = {keys["checkpoint"] for keys in partitions if keys["task"] == task} & known.keys() - {base}
        compared = {tuple(sorted(pair)) for pair in held_on_task(root, task, known)}
        found[task] = [pair for pair in _without(held_features(root, task, known), written) if pair in compared]
    return found


def _present(rows: pl.DataFrame, prints: Mapping[str, str]) -> set[str]:
    return {checkpoint for checkpoint, content in rows.iter_rows() if prints.get(checkpoint) == content}


def _asked(catalog: Catalog, root: DataRoot) -> tuple[str, str, tuple[Pair, ...]]:
    return str(root.root), catalog.base.id, tuple(sorted(fingerprints(root, catalog).items()))


def _state(root: DataRoot, *tables: Table) -> tuple[Any, ...]:
    return tuple((str(file.path), file.bytes, file.version) for table in tables for file in root.written(table))
