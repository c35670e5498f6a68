"""What lies under the data root at this moment, as far as steps ask for it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from simmerge_core.catalog import Catalog
from simmerge_core.checkpoints import CheckpointFolder, open_checkpoint, resolve
from simmerge_core.checkpoints import fingerprint as content_hash
from simmerge_core.errors import CheckpointError, ProbeError, TableError
from simmerge_core.probes import cached, is_cached, probe_key, read_prompts
from simmerge_core.storage import File, files_below, kept_listings
from simmerge_core.tables import (
    CHECKPOINTS,
    FUNCTIONAL_SIMILARITY,
    MERGE_LABELS,
    PAIRWISE_FEATURES,
    WEIGHT_GRAM,
    DataRoot,
    Table,
)

if TYPE_CHECKING:
    from simmerge_core.probes import ProbeRecord

_KEPT: ContextVar[dict[str, tuple[tuple[str, str], ...]] | None] = ContextVar("_KEPT", default=None)


def fingerprints(root: DataRoot, catalog: Catalog) -> dict[str, str]:
    """Content hash of every checkpoint of the catalog (base included) whose manifest is written."""
    declared = {catalog.base.id, *catalog.checkpoint_ids}
    place, kept = str(root.root), _KEPT.get()
    if kept is None:
        rows = _manifests(place, _state(root))
    elif place in kept:
        rows = kept[place]
    else:
        rows = kept[place] = _manifests(place, _state(root))
    return {checkpoint: fingerprint for checkpoint, fingerprint in rows if checkpoint in declared}


@contextlib.contextmanager
def kept_manifests() -> Iterator[None]:
    """Look at the manifests once, for a caller that asks for thousands of stamps of one moment."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def _state(root: DataRoot) -> frozenset[Any]:
    return frozenset((str(file.path), file.bytes, file.version) for file in root.written(CHECKPOINTS))


@functools.lru_cache(maxsize=4)
def _manifests(root: str, state: frozenset[Any]) -> tuple[tuple[str, str], ...]:
    """Checkpoint and fingerprint of every manifest; read again only when one has changed, since every stamp asks."""
    return tuple(DataRoot(root).scan(CHECKPOINTS).select("checkpoint", "fingerprint").collect().iter_rows())


def fingerprint_of(prints: Mapping[str, str], checkpoint: str) -> str:
    """The content hash of one checkpoint; raises CheckpointError if its manifest is not written."""
    if checkpoint not in prints:
        raise CheckpointError(
            f"Checkpoint {checkpoint!r} has no manifest: materialize its partition of `checkpoints`, or repair it."
        )
    return prints[checkpoint]


def other_content(checkpoint: str, now: str, before: str) -> CheckpointError:
    """What to raise where a folder holds other weights than its manifest says."""
    return CheckpointError(
        f"Checkpoint {checkpoint!r} has other content than before (fingerprint {now[:12]}, was {before[:12]}), but a "
        "checkpoint is immutable: give it a new id, or materialize with replace."
    )


def changed_since(
    root: DataRoot, catalog: Catalog, prints: Mapping[str, str], checkpoints: Iterable[str]
) -> dict[str, CheckpointError]:
    """Those of `checkpoints` whose folder holds other content than their manifest says, with what to raise.

    Only what was touched after its manifest was written is hashed. A folder that cannot be opened is not judged here:
    whoever reads its weights says what is wrong.
    """
    return _changed_since(root.written(CHECKPOINTS), root, catalog, prints, checkpoints)


def _changed_since(
    files: Sequence[File], root: DataRoot, catalog: Catalog, prints: Mapping[str, str], checkpoints: Iterable[str]
) -> dict[str, CheckpointError]:
    """`changed_since` with the files of the manifests."""
    found, written = {}, {str(file.path): file.seconds for file in files}
    for checkpoint in sorted({*checkpoints} & prints.keys()):
        with contextlib.suppress(CheckpointError, OSError):
            path = resolve(catalog.checkpoint(checkpoint))
            touched = max(file.stat().st_ctime for file in (path, *path.iterdir()))
            if touched < written.get(str(root.path(CHECKPOINTS, checkpoint=checkpoint)), 0.0):
                continue
            now = _hashed(path, touched)
            if now != prints[checkpoint]:
                found[checkpoint] = other_content(checkpoint, now, prints[checkpoint])
    return found


def require_content(root: DataRoot, catalog: Catalog, prints: Mapping[str, str], checkpoint: str) -> None:
    """Raise CheckpointError where a folder holds other content than its manifest says, before its weights are used."""
    own = files_below(root.path(CHECKPOINTS, checkpoint=checkpoint).parent, pattern="part.parquet")  # not all manifests
    refuse_changed(_changed_since(own, root, catalog, prints, [checkpoint]), checkpoint)


def refuse_changed(changed: Mapping[str, CheckpointError], *checkpoints: str) -> None:
    """Raise what `changed_since` found of the first of these checkpoints."""
    for checkpoint in checkpoints:
        if checkpoint in changed:
            raise changed[checkpoint]


@functools.lru_cache(maxsize=4096)
def _hashed(path: Path, touched: float) -> str:
    return content_hash(open_checkpoint(path))


def task_probe_key(catalog: Catalog, task: str) -> str:
    """Content hash of a task's probe set with its settings."""
    entry = catalog.task(task)
    return probe_key(read_prompts(entry.probes, limit=entry.probe_settings.count), entry.probe_settings)


def probe_records(root: DataRoot, catalog: Catalog, task: str, prints: Mapping[str, str]) -> dict[str, ProbeRecord]:
    """Records of all checkpoints on a task that were computed from the present weights and the present probe set."""
    key, found = task_probe_key(catalog, task), {}
    with kept_listings(root.root):
        for checkpoint, fingerprint in prints.items():
            if is_cached(root, checkpoint, task):
                try:
                    found[checkpoint] = cached(root, checkpoint, task, fingerprint=fingerprint, probe_key=key)
                except ProbeError:
                    continue  # of other weights or probes: as good as absent until it is recorded again
    return found


def held_on_task(root: DataRoot, task: str, prints: Mapping[str, str]) -> set[tuple[str, str]]:
    """(owner, other) of every pair that a partition of `functional_similarity` holds with both's present content."""
    where = [keys for keys in root.partitions(FUNCTIONAL_SIMILARITY) if keys["task"] == task]
    rows = (
        root.scan(FUNCTIONAL_SIMILARITY, where=where)
        .filter((pl.col("metric") == "kl") & (pl.col("a") == pl.col("checkpoint")))
        .select("a", "b", "a_fingerprint", "b_fingerprint")
        .collect()
    )
    return _current(rows, prints)


def held_features(root: DataRoot, task: str, prints: Mapping[str, str]) -> set[tuple[str, str]]:
    """(owner, other) of every pair that a partition of `pairwise_features` holds with the present content of both."""
    where = [keys for keys in root.partitions(PAIRWISE_FEATURES) if keys["task"] == task]
    rows = root.scan(PAIRWISE_FEATURES, where=where).filter(pl.col("a") == pl.col("checkpoint"))
    return _current(rows.select("a", "b", "a_fingerprint", "b_fingerprint").collect(), prints)


def held_labels(root: DataRoot, prints: Mapping[str, str]) -> set[tuple[str, str, str]]:
    """(owner, other, task) of every pair that a partition of `merge_labels` holds with the present content of both."""
    rows = root.scan(MERGE_LABELS).select("checkpoint", "task", "a", "b", "a_fingerprint", "b_fingerprint").unique()
    present = (
        rows.collect().pipe(of_present, "a", "a_fingerprint", prints).pipe(of_present, "b", "b_fingerprint", prints)
    )
    other = pl.when(pl.col("a") == pl.col("checkpoint")).then("b").otherwise("a")
    return set(present.select("checkpoint", other.alias("other"), "task").iter_rows())


def held_weights(root: DataRoot, prints: Mapping[str, str]) -> set[tuple[str, str]]:
    """(owner, other) of every pair that a partition of `weight_gram` holds with the present content of both."""
    rows = (
        root.scan(WEIGHT_GRAM)
        .select("checkpoint", "other", "checkpoint_fingerprint", "other_fingerprint")
        .unique()
        .collect()
    )
    return _current(rows, prints)


def functional_rows(root: DataRoot, task: str, prints: Mapping[str, str]) -> pl.DataFrame:
    """All rows of `functional_similarity` on a task that come from the present content of both checkpoints."""
    where = [keys for keys in root.partitions(FUNCTIONAL_SIMILARITY) if keys["task"] == task]
    rows = root.scan(FUNCTIONAL_SIMILARITY, where=where).collect()
    return of_present(rows, "a", "a_fingerprint", prints).pipe(of_present, "b", "b_fingerprint", prints)


def gram_rows(root: DataRoot, prints: Mapping[str, str]) -> pl.DataFrame:
    """All rows of `weight_gram` that come from the present content of both checkpoints."""
    rows = of_present(root.scan(WEIGHT_GRAM).collect(), "checkpoint", "checkpoint_fingerprint", prints)
    return of_present(rows, "other", "other_fingerprint", prints)


def of_present(rows: pl.DataFrame, column: str, fingerprint: str, prints: Mapping[str, str]) -> pl.DataFrame:
    """The rows whose checkpoint in `column` had, as `fingerprint` says, the content that it has now."""
    present = pl.DataFrame({column: list(prints), fingerprint: list(prints.values())})
    return rows.join(present.cast(pl.String), on=[column, fingerprint], how="semi", maintain_order="left")


def _current(rows: pl.DataFrame, prints: Mapping[str, str]) -> set[tuple[str, str]]:
    return {(a, b) for a, b, x, y in rows.iter_rows() if a != b and prints.get(a) == x and prints.get(b) == y}


def recorded(root: DataRoot, task: str, prints: Mapping[str, str]) -> list[str]:
    """Checkpoints with a probe record on the task; the records are not opened."""
    with kept_listings(root.root):
        return [checkpoint for checkpoint in prints if is_cached(root, checkpoint, task)]


def require_record(records: Mapping[str, ProbeRecord], checkpoint: str, task: str) -> None:
    """Raise ProbeError if a checkpoint has no usable record on the task."""
    if checkpoint not in records:
        raise ProbeError(
            f"Checkpoint {checkpoint!r} has no probe record of its present weights and probes on task {task!r}: "
            "materialize its partition of `probe_activations` first."
        )


def require_partition(root: DataRoot, table: Table, **keys: str) -> None:
    """Raise TableError if a partition has not been written."""
    if not root.exists(table, **keys):
        raise TableError(f"Table {table.name} has no partition {'|'.join(keys.values())}: materialize it first.")


def opened(catalog: Catalog, checkpoints: Iterable[str]) -> dict[str, CheckpointFolder]:
    """Folders of checkpoints by id, opened by header."""
    return {c: open_checkpoint(resolve(catalog.checkpoint(c)), name=c) for c in sorted(checkpoints)}


def with_pairs(gram: pl.DataFrame, pairs: Sequence[tuple[str, str]], catalog: Catalog, *, device: str) -> pl.DataFrame:
    """Inner products with those of `pairs` added that no partition holds (yet): they are computed here, not awaited."""
    from simmerge_core.similarity import weight_gram

    known = set(gram.select("checkpoint", "other").unique().iter_rows())
    base = catalog.base.id
    absent = [(a, b) for a, b in pairs if not ({(a, b), (b, a)} & known and {(a, base), (b, base)} <= known)]
    if not absent:
        return gram
    folders = opened(catalog, {c for pair in absent for c in pair})
    rows = weight_gram(folders, opened(catalog, {base})[base], absent, device=device)
    return pl.concat([rows.select(gram.columns), gram]).unique(
        ["checkpoint", "other", "tensor"], keep="first", maintain_order=True
    )


def neighbours(held: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The others with which each checkpoint has a pair, whichever of both holds it, sorted."""
    found: dict[str, set[str]] = {}
    for owner, other in held:
        found.setdefault(owner, set()).add(other)
        found.setdefault(other, set()).add(owner)
    return {checkpoint: sorted(others) for checkpoint, others in found.items()}


def by_owner(rows: pl.DataFrame, owned: Mapping[str, Sequence[str]]) -> dict[str, pl.DataFrame]:
    """Split rows of pairs (columns a, b) among the partitions that hold the pair, in either orientation."""
    ties = [(x, y, c) for c, others in owned.items() for d in others for x, y in ((c, d), (d, c))]
    owners = pl.DataFrame(ties, schema=dict.fromkeys(("a", "b", "_owner"), pl.String), orient="row")
    marked = rows.join(owners, on=["a", "b"], how="inner", maintain_order="left")
    parts = {str(owner): part.drop("_owner") for (owner,), part in marked.group_by("_owner", maintain_order=True)}
    return {owner: parts.get(owner, rows.clear()) for owner in owned}


def later_in(keys: Sequence[str], number: int) -> set[str]:
    """The keys that a run serves after the one with this number."""
    return set(keys[number + 1 :])
