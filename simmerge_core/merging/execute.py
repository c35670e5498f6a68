"""Execution of a plan from folders to a Hugging Face folder (§2.1)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from simmerge_core.checkpoints.compatibility import check_compatible
from simmerge_core.checkpoints.dtypes import storage_dtype, torch_dtype, writable_bytes
from simmerge_core.checkpoints.fingerprints import combine_digests, fingerprint
from simmerge_core.checkpoints.finite import all_finite, check_tied_copies
from simmerge_core.checkpoints.folder import CheckpointFolder, open_checkpoint
from simmerge_core.checkpoints.header import DTYPE_NAMES
from simmerge_core.devices import check_device
from simmerge_core.errors import MergeError
from simmerge_core.files import replaced_folder
from simmerge_core.merging.companions import companion_files, merged_config, write_companions
from simmerge_core.merging.shards import OutputTensor, ShardWriter, shard_name, split_into_shards, write_index
from simmerge_core.merging.sources import KEPT_BYTES, TensorSource, read_ahead
from simmerge_core.merging.steps import Step, needs_base, steps_of
from simmerge_core.merging.streaming import TensorMerge
from simmerge_core.operators.operator import BLOCK
from simmerge_core.plans import Plan, recipe_key
from simmerge_core.storage import Location, ObjectPath, located, scratch_folder

if TYPE_CHECKING:
    from simmerge_core.catalog import Catalog

Progress = Callable[[str, float], None]

PROVENANCE = "simmerge.json"
CONFIG = "config.json"
"""Says in an object store that a merged folder is complete."""
SHARD_BYTES = 5_000_000_000
_SPARE = 16 << 20  # bytes left free beside the weights, for tokenizer and documents


@dataclass(frozen=True)
class MergedCheckpoint:
    """A merge that stands complete in its folder.

    Attributes
    ----------
    recipe_key
        Content hash of what determines the weights.
    fingerprint
        Content hash of the result.
    dtype
        Storage dtype, e.g. ``"float32"``; several joined by ``+`` where the first checkpoint mixes them.
    fingerprints
        Of the inputs, by name in the plan.
    base_fingerprint
        None where no step reads the base.
    """

    path: Location
    plan: Plan
    recipe_key: str
    fingerprint: str
    dtype: str
    fingerprints: Mapping[str, str]
    base_fingerprint: str | None
    parameters: int
    bytes: int


def execute_plan(
    plan: Plan,
    folders: Mapping[str, Path],
    out_dir: Location,
    *,
    base: Path | None = None,
    dtype: str | torch.dtype | None = None,
    device: str = "cpu",
    tokenizer_from: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    base_fingerprint: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> MergedCheckpoint:
    """Merge checkpoints step by step and write a folder that transformers loads as it is.

    Everything that can be refused without reading a weight is refused before a byte is written; NaN and infinite
    weights are met while reading. The folder appears at `out_dir` only when complete; a failed or killed merge
    leaves what was there before. Memory is bounded by a few blocks per checkpoint whatever the size of the model.
    Intermediate results stay float32; the last one is rounded to nearest.

    Parameters
    ----------
    folders
        Folder per checkpoint of the plan.
    out_dir
        New folder, or one that an earlier merge wrote, which is replaced. In an object store it is built in the
        scratch folder of this machine and then uploaded.
    base
        Folder of the common base; needed where `needs_base(plan)`.
    dtype
        ``"float32"``, ``"bfloat16"`` or ``"float16"``; by default each tensor keeps its stored dtype, which must
        then be the same in all checkpoints.
    tokenizer_from
        Folder whose tokenizer and generation config are copied; by default the first checkpoint that has a
        tokenizer, then the base.
    provenance
        JSON values kept in ``simmerge.json`` as given; ``sources`` (name → public id) is used in the model card too.
    fingerprints, base_fingerprint
        Content hashes where they are known already; the others are computed beside the merge.
    shard_bytes
        Greatest size of an output file, unless a single tensor is larger.

    Raises
    ------
    CheckpointError
        If an input is damaged, incompatible, or holds NaN or infinite weights.
    MergeError
        If the base is missing, the output overlaps an input, exists and is no merge, does not fit the disk, or
        would overflow `dtype`.
    OperatorError
        If an operator of the plan is unknown.
    """
    report = progress or (lambda message, fraction: None)
    report("checking inputs", 0.0)
    check_device(device)
    steps = steps_of(plan)
    inputs = _open_inputs(plan, folders)
    base_folder = _open_base(plan, base)
    donor = None if tokenizer_from is None else Path(tokenizer_from)
    out_dir = located(out_dir)
    _check_output(out_dir, [*(f.path for f in inputs), *([Path(base)] if base else []), *([donor] if donor else [])])
    opened = [*inputs, *([base_folder] if base_folder else [])]
    check_compatible(opened)
    tensors = _output_tensors(inputs, dtype)
    companions = companion_files(inputs, base=base, chosen=donor)
    _check_space(out_dir, sum(t.bytes for t in tensors))
    for folder in opened:
        check_tied_copies(folder)
    stored = "+".join(sorted({DTYPE_NAMES[t.dtype] for t in tensors if t.entry.is_float})) or inputs[0].dtype

    hashes = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fingerprint")
    try:
        pending = {
            f.path: hashes.submit(fingerprint, f)
            for n, f in zip(plan.checkpoints, inputs, strict=True)
            if n not in (fingerprints or {})
        }
        if base_folder is not None and base_fingerprint is None and base_folder.path not in pending:
            pending[base_folder.path] = hashes.submit(fingerprint, base_folder)
        with replaced_folder(out_dir, last=CONFIG) as temporary:
            config = merged_config(inputs[0], dtype=stored)
            digests = _write_weights(
                steps, inputs, base_folder, tensors, temporary, shard_bytes=shard_bytes, device=device, report=report
            )
            known = {
                n: _settled(n, fingerprints, pending, f.path) for n, f in zip(plan.checkpoints, inputs, strict=True)
            }
            of_base = None if base_folder is None else (base_fingerprint or pending[base_folder.path].result())
            merged = MergedCheckpoint(
                path=out_dir,
                plan=plan,
                recipe_key=recipe_key(plan, fingerprints=known, base_fingerprint=of_base, dtype=stored),
                fingerprint=combine_digests(
                    config, {t.entry.name: (t.dtype, t.entry.shape, digests[t.entry.name]) for t in tensors}
                ),
                dtype=stored,
                fingerprints=known,
                base_fingerprint=of_base,
                parameters=sum(t.entry.size for t in tensors),
                bytes=sum(t.bytes for t in tensors),
            )
            write_companions(
                temporary, merged, config=config, copies=companions, paths={n: f.path for n, f in
                zip(plan.checkpoints, inputs, strict=True)}, base=None if base_folder is None else base_folder,
                provenance=provenance or {},
            )  # fmt: skip
            report("finishing", 1.0)
    except OSError as error:
        raise MergeError(
            f"The merge {plan} could not be written to {out_dir}: {error.strerror or error}; nothing was left there."
        ) from error
    finally:
        hashes.shutdown(wait=True, cancel_futures=True)
    report(f"merged {plan} into {out_dir}", 1.0)
    return merged


def execute_plan_from_catalog(
    plan: Plan, catalog: Catalog, out_dir: Location, *, allow_hub: bool = False, **options: Any
) -> MergedCheckpoint:
    """`execute_plan` with folders and base taken from a catalog; `options` are those of `execute_plan`.

    Raises
    ------
    CatalogError
        If a checkpoint of the plan is not in the catalog.
    """
    from simmerge_core.checkpoints.hub import resolve

    entries = {c: catalog.checkpoint(c) for c in plan.checkpoints}
    folders = {c: resolve(entry, allow_hub=allow_hub) for c, entry in entries.items()}
    if options.get("base") is None and needs_base(plan):
        options["base"] = resolve(catalog.base, allow_hub=allow_hub)
    provenance = dict(options.pop("provenance", None) or {})
    public = {c: (f"{entry.hub}" if entry.hub else c) for c, entry in entries.items()}
    provenance.setdefault("sources", public)
    return execute_plan(plan, folders, out_dir, provenance=provenance, **options)


def _settled(name: str, given: Mapping[str, str] | None, pending: Mapping[Path, Future[str]], path: Path) -> str:
    return given[name] if given and name in given else pending[path].result()


def _open_inputs(plan: Plan, folders: Mapping[str, Path]) -> list[CheckpointFolder]:
    for name in plan.checkpoints:
        if name not in folders:
            raise MergeError(f"Plan {plan} names checkpoint {name!r}, but no folder was given for it.")
    return [open_checkpoint(Path(folders[name]), name=name) for name in plan.checkpoints]


def _open_base(plan: Plan, base: Path | None) -> CheckpointFolder | None:
    """The base where a step reads it."""
    if not needs_base(plan):
        return None
    if base is None:
        named = next(step.operator.name for step in steps_of(plan) if step.operator.needs_base)
        raise MergeError(
            f"Plan {plan} works on task vectors (operator {named!r}): give the base that the checkpoints were "
            "tuned from (--base)."
        )
    return open_checkpoint(Path(base), name=f"{Path(base).name} (base)")


def _check_output(out_dir: Location, inputs: list[Path]) -> None:
    if isinstance(out_dir, ObjectPath):
        if (out_dir / CONFIG).is_file() and not (out_dir / PROVENANCE).is_file():
            raise _not_ours(out_dir)
        return
    place = Path(os.path.realpath(out_dir))  # takes a link that leads to itself, unlike Path.resolve
    for folder in inputs:
        source = Path(os.path.realpath(folder))
        if place == source or source in place.parents or place in source.parents:
            raise MergeError(f"Output {out_dir} overlaps the input {folder}: choose a folder apart from every input.")
    if out_dir.exists() or out_dir.is_symlink():
        if out_dir.is_symlink() or not out_dir.is_dir():
            raise MergeError(f"Output {out_dir} exists and is not a folder: choose another.")
        if any(out_dir.iterdir()) and not (out_dir / PROVENANCE).is_file():
            raise _not_ours(out_dir)


def _not_ours(out_dir: Location) -> MergeError:
    return MergeError(
        f"Output {out_dir} exists and was not written by a merge (no {PROVENANCE}): empty it or choose another."
    )


def _check_space(out_dir: Location, needed: int) -> None:
    if isinstance(out_dir, ObjectPath):
        scratch = scratch_folder()
        free = shutil.disk_usage(scratch).free
        if free < needed + _SPARE:
            raise MergeError(
                f"Output {out_dir} is built in {scratch} before it is uploaded, which needs "
                f"{(needed + _SPARE) / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free: make room, or let SIMMERGE_CACHE "
                "name a folder on another disk."
            )
        return
    place = out_dir.resolve().parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + _SPARE:
        raise MergeError(
            f"Output {out_dir} needs {(needed + _SPARE) / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free: make room "
            "or choose another disk."
        )


def _output_tensors(inputs: list[CheckpointFolder], dtype: str | torch.dtype | None) -> list[OutputTensor]:
    wanted = None if dtype is None else storage_dtype(dtype)
    tensors = []
    for entry in inputs[0].tensors.values():
        for other in inputs[1:]:
            theirs = other.tensors[entry.name].dtype
            if wanted is None and theirs != entry.dtype:
                raise MergeError(
                    f"Checkpoints {inputs[0].name!r} and {other.name!r} store tensor {entry.name!r} as "
                    f"{DTYPE_NAMES.get(entry.dtype, entry.dtype)} "
                    f"and {DTYPE_NAMES.get(theirs, theirs)}: name the output dtype (--dtype)."
                )
        tensors.append(OutputTensor(entry, wanted if wanted and entry.is_float else entry.dtype))
    return tensors


def _write_weights(
    steps: tuple[Step, ...],
    inputs: list[CheckpointFolder],
    base: CheckpointFolder | None,
    tensors: list[OutputTensor],
    folder: Path,
    *,
    shard_bytes: int,
    device: str,
    report: Progress,
) -> dict[str, str]:
    """Write all shards; SHA-256 of every tensor's bytes by name."""
    shards = split_into_shards(tensors, limit=shard_bytes)
    order = [t for shard in shards for t in shard]
    following = dict(zip((t.entry.name for t in order), [*(t.entry.name for t in order[1:]), None], strict=True))
    total = sum(t.bytes for t in order) or 1
    done = 0
    digests: dict[str, str] = {}
    for position, shard in enumerate(shards):
        with ShardWriter(folder / shard_name(position, len(shards)), shard) as writer:
            for tensor in shard:
                name = tensor.entry.name
                ahead = following[name]
                if ahead is not None:
                    for source in (*inputs, *([base] if base else [])):
                        read_ahead(source, ahead)
                report(f"merging {name}", done / total)
                for data in _merged_bytes(steps, inputs, base, tensor, device=device):
                    writer.write(name, data)
                done += tensor.bytes
        digests.update(writer.digests)
    write_index(folder, shards)
    return digests


def _merged_bytes(
    steps: tuple[Step, ...],
    inputs: list[CheckpointFolder],
    base: CheckpointFolder | None,
    tensor: OutputTensor,
    *,
    device: str,
) -> Iterator[memoryview]:
    name, size = tensor.entry.name, tensor.entry.size
    if not tensor.entry.is_float:
        yield from _copied_bytes(inputs, name, size)
        return
    keep = bool(steps) and 4 * size * (len(inputs) + (base is not None)) <= KEPT_BYTES
    readers = [TensorSource(f, name, device=device, keep=keep) for f in inputs]
    of_base = None if base is None else TensorSource(base, name, device=device, keep=keep)
    target = torch_dtype(tensor.dtype)
    for _, values in TensorMerge(steps, readers, of_base, name=name, size=size).blocks():
        rounded = values.to(target).cpu()  # to nearest, ties to even
        if not all_finite(rounded):
            raise MergeError(
                f"The merge overflows {DTYPE_NAMES[tensor.dtype]} in tensor {name!r}: choose float32 or bfloat16, "
                "or smaller weights."
            )
        yield writable_bytes(rounded)


def _copied_bytes(inputs: list[CheckpointFolder], name: str, size: int) -> Iterator[memoryview]:
    """A tensor that is not floating-point: it must be the same in all checkpoints, and is copied."""
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        first = inputs[0].read_chunk(name, start, stop)
        for other in inputs[1:]:
            if not torch.equal(first, other.read_chunk(name, start, stop)):
                raise MergeError(
                    f"Checkpoints {inputs[0].name!r} and {other.name!r} differ in tensor {name!r}, which holds no "
                    "floating-point weights."
                )
        yield writable_bytes(first)
