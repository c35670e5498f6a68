"""What a partition was computed from, as one hash, kept with its materialization: equal work is not done again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from simmerge_core.bandit import bandit_name
from simmerge_core.catalog import Catalog
from simmerge_core.checkpoints import resolve
from simmerge_core.errors import SelectionError, SimMergeError
from simmerge_core.evaluation import task_key
from simmerge_core.features.columns import FEATURE_VERSION
from simmerge_core.files import hash_json
from simmerge_core.plans import plan_of
from simmerge_core.probes import is_cached
from simmerge_core.selector import SELECTOR_FORMAT, Selector
from simmerge_core.tables import (
    ACTIVE_LABELS,
    BANDIT_ROUNDS,
    FUNCTIONAL_SIMILARITY,
    MERGE_LABELS,
    MERGE_PLANS,
    PAIRWISE_FEATURES,
    TABLES,
    DataRoot,
)
from simmerge_pipeline.bandits import bandit_source, wanted_bandits
from simmerge_pipeline.contents import fingerprint_of, fingerprints, task_probe_key
from simmerge_pipeline.partitions import cell
from simmerge_pipeline.requests import executed

STAMP = "inputs"
"""Metadata key under which the hash is kept."""

_WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json")
_OF_REQUESTS = ("merge_plans", "merged_checkpoints", "merge_outcomes", "bandit_rounds")
_NO_LABEL_DEPENDS_ON = ("daily_merges", "merges_per_checkpoint", "retrain_after")
_TRAINED_FROM = (PAIRWISE_FEATURES, MERGE_LABELS, ACTIVE_LABELS)


def stamped(asset: str, catalog: Catalog, root: DataRoot, key: str | None = None) -> dict[str, str]:
    """The metadata entry that keeps the stamp of a partition."""
    return {STAMP: stamp(asset, catalog, root, key)}


def stamp(asset: str, catalog: Catalog, root: DataRoot, key: str | None = None) -> str:
    """SHA-256 (hex) of everything that determines a partition's content, as it is now.

    Parameters
    ----------
    asset
        Name of the asset.
    key
        Its partition; None for an unpartitioned asset.

    Raises
    ------
    SimMergeError
        If an input is not there.
    """
    return hash_json([asset, _INPUTS[asset](catalog, root, key or "")])


def stamps_at_start(asset: str, catalog: Catalog, root: DataRoot, keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """The metadata entries that keep the stamps of partitions, by key, of what is there before any of it is read.

    A stamp that is taken at the end would vouch for what came in while the step was at work, and hide that it is
    missing. Keys whose inputs are not there are left out.
    """
    found = {}
    for key in keys:
        with contextlib.suppress(SimMergeError, OSError):
            found[key] = stamped(asset, catalog, root, key)
    return found


def settled(asset: str, catalog: Catalog, root: DataRoot, key: str | None) -> bool:
    """Whether a partition is of a merge request that has been executed, and therefore stays as it is.

    Another selector would plan it otherwise, and a checkpoint that has left the catalog could not be merged again; the
    answer that was given is kept. A request that now asks for something else is open again, and so is one whose
    checkpoints have other content than what was merged.
    """
    if asset not in _OF_REQUESTS or not exists(asset, root, key):
        return False
    request, prints = catalog.merge_request(key or ""), fingerprints(root, catalog)
    done = executed(root, request)
    if done is None:
        return False
    merged = dict(zip(done.checkpoints, done.fingerprints, strict=True))
    if any(prints.get(c, content) != content for c, content in merged.items()):
        return False
    if asset == "merge_plans":
        return request.policy == "selector"  # a bandit's draw has a stamp that stays
    return not merged.keys() <= prints.keys()


def exists(asset: str, root: DataRoot, key: str | None = None) -> bool:
    """Whether the files of a partition are there."""
    if asset in TABLES:
        table = TABLES[asset]
        values = (key or "").split("|")
        return root.exists(table, **dict(zip(table.partition, values, strict=True)))
    if asset == "probe_activations":
        return is_cached(root, *cell(key or ""))
    if asset == "merged_checkpoints":
        return (root.folder(asset, merge_request=key or "") / "config.json").is_file()
    if asset == "bandit":
        return (root.root / asset / "bandits.json").is_file()
    if asset == "selector":
        return all(Selector.is_in(root.root / asset / name) for name in ("paper", "extended"))
    return (root.root / asset / "report.json").is_file()


def _checkpoint(catalog: Catalog, root: DataRoot, key: str) -> Any:
    entry = catalog.checkpoint(key)
    folder = resolve(entry)
    return [entry.domain, entry.revision, _files(folder, *_WEIGHT_FILES)]


def _probes(catalog: Catalog, root: DataRoot, key: str) -> Any:
    checkpoint, task = cell(key)
    return [fingerprint_of(fingerprints(root, catalog), checkpoint), task_probe_key(catalog, task)]


def _weights(catalog: Catalog, root: DataRoot, key: str) -> Any:
    prints = fingerprints(root, catalog)
    return [fingerprint_of(prints, key), fingerprint_of(prints, catalog.base.id)]


def _features(catalog: Catalog, root: DataRoot, key: str) -> Any:
    return [FEATURE_VERSION, _probes(catalog, root, key), _pairs(root, FUNCTIONAL_SIMILARITY.name, key)]


def _standalone(catalog: Catalog, root: DataRoot, key: str) -> Any:
    checkpoint, task = cell(key)
    return [fingerprint_of(fingerprints(root, catalog), checkpoint), task_key(catalog.task(task))]


def _labels(catalog: Catalog, root: DataRoot, key: str) -> Any:
    pairs, budget = _pairs(root, PAIRWISE_FEATURES.name, key), catalog.labels.merges_per_checkpoint
    return [
        pairs,
        task_key(catalog.task(cell(key).task)),
        catalog.labels.model_dump(mode="json", exclude={"multiway", *_NO_LABEL_DEPENDS_ON}),
        _actions(catalog),
        *([budget] if budget is not None and 2 * budget < len(pairs) else []),  # where it may leave a pair out
    ]


def _actions(catalog: Catalog) -> Any:
    """The actions that merges are labelled under; the catalog's own sets by name too, since each has its selector."""
    own = {name: list(texts) for name, texts in sorted(catalog.action_sets.items())}
    return [*(str(action) for action in catalog.actions("extended")), *([own] if own else [])]


def _plan_labels(catalog: Catalog, root: DataRoot, key: str) -> Any:
    return [
        sorted(fingerprints(root, catalog).items()),
        task_key(catalog.task(key)),
        catalog.labels.model_dump(mode="json", exclude=set(_NO_LABEL_DEPENDS_ON)),
        list(catalog.task_ids),  # plans of every task's configurations are scored on this one
        _trained(catalog, root),
    ]


def _selectors(catalog: Catalog, root: DataRoot, key: str) -> Any:
    trained_from = _table_files(root, *(table.name for table in _TRAINED_FROM))
    return [SELECTOR_FORMAT, trained_from, _actions(catalog)]


def _trained(catalog: Catalog, root: DataRoot) -> Any:
    if not exists("selector", root):
        raise SelectionError(f"There is no selector in {root.root / 'selector'}: materialize the asset selector first.")
    return _selectors(catalog, root, "")


def _bandits(catalog: Catalog, root: DataRoot, key: str) -> Any:
    """What bandits there are and what they may choose; labels are read once, when one is started."""
    wanted = {
        name: [str(a) for a in catalog.actions(actions)] for name, (actions, _) in wanted_bandits(catalog).items()
    }
    return [FEATURE_VERSION, wanted, list(catalog.task_ids), catalog.bandit.model_dump(mode="json")]


def _rounds(catalog: Catalog, root: DataRoot, key: str) -> Any:
    return [catalog.merge_request(key).policy, _outcomes(catalog, root, key)]


def _plans(catalog: Catalog, root: DataRoot, key: str) -> Any:
    request, present = catalog.merge_request(key), fingerprints(root, catalog)
    if request.policy != "selector":
        # Drawn once: what is learned later does not change it, and once it has learned not even another bandit.
        name = bandit_name(request.actions, request.policy)
        done = root.scan(BANDIT_ROUNDS, where=[{"merge_request": key}]).collect()
        learned = done.height == request.k - 1 and done["bandit"][0] == name
        return [request.model_dump(mode="json"), done["source"][0] if learned else bandit_source(root, name)]
    pool = catalog.checkpoint_ids if request.checkpoints == "all" else request.checkpoints
    return [request.model_dump(mode="json"), sorted(set(pool) & present.keys()), _trained(catalog, root)]


def _merged(catalog: Catalog, root: DataRoot, key: str) -> Any:
    best = root.read(MERGE_PLANS, merge_request=key).filter(pl.col("rank") == 1).row(0, named=True)
    plan, prints = plan_of(best["order"], best["actions"]), fingerprints(root, catalog)
    return [str(plan), [fingerprint_of(prints, c) for c in (catalog.base.id, *plan.checkpoints)]]


def _outcomes(catalog: Catalog, root: DataRoot, key: str) -> Any:
    tasks = catalog.merge_request(key).targets
    return [
        _merged(catalog, root, key),
        [task_key(catalog.task(task)) for task in tasks],
    ]


def _report(catalog: Catalog, root: DataRoot, key: str) -> Any:
    read = [name for name in TABLES if name not in (BANDIT_ROUNDS.name, ACTIVE_LABELS.name)]
    return [_trained(catalog, root), _table_files(root, *read)]


_INPUTS: Mapping[str, Callable[[Catalog, DataRoot, str], Any]] = {
    "checkpoints": _checkpoint,
    "probe_activations": _probes,
    "weight_gram": _weights,
    "functional_similarity": _probes,
    "pairwise_features": _features,
    "standalone_scores": _standalone,
    "merge_labels": _labels,
    "plan_labels": _plan_labels,
    "selector": _selectors,
    "merge_plans": _plans,
    "merged_checkpoints": _merged,
    "merge_outcomes": _outcomes,
    "bandit": _bandits,
    "bandit_rounds": _rounds,
    "report": _report,
}


def _files(folder: Path, *patterns: str) -> list[list[Any]]:
    found = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in found]


def _table_files(root: DataRoot, *tables: str) -> list[Any]:
    """Path, size and version of every file of the tables: what changes when any partition is written."""
    files = [file for table in tables for file in root.written(TABLES[table])]
    above = len(root.root.parts)
    told = [["/".join(file.path.parts[above:]), file.bytes, file.version] for file in files]
    return sorted(told, key=lambda entry: str(entry[0]).split("/"))


def _pairs(root: DataRoot, table: str, key: str) -> list[Any]:
    """The pairs that a partition holds, with the content of both."""
    checkpoint, task = cell(key)
    frame = root.read(TABLES[table], checkpoint=checkpoint, task=task)
    columns = ["a", "b", "a_fingerprint", "b_fingerprint"]
    return frame.filter(pl.col("a") != pl.col("b")).select(columns).unique().sort(columns).rows()
