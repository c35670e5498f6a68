"""Merges in memory, for labels: thousands of small models, no disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from simmerge_core.checkpoints.finite import check_chunk, check_tied_copies
from simmerge_core.checkpoints.folder import embedding_names, open_checkpoint
from simmerge_core.errors import MergeError
from simmerge_core.merging.steps import steps_of
from simmerge_core.plans import Plan


def load_weights(path: Path, *, name: str | None = None) -> dict[str, Tensor]:
    """All weights of a checkpoint in float32, for `merge_tensors`.

    Returns
    -------
    dict[str, Tensor]
        By tensor name, in file-offset order. Where the head is tied, ``lm_head.weight`` is there too and is the
        very tensor of the embedding, as in a live model's ``state_dict``. Tensors that are not floating-point keep
        their dtype.

    Raises
    ------
    CheckpointError
        If the folder is unusable or a weight is NaN or infinite.
    """
    folder = open_checkpoint(Path(path), name=name)
    weights: dict[str, Tensor] = {}
    for tensor in folder.tensors:
        values = folder.read(tensor)
        check_chunk(values, checkpoint=folder.name, tensor=tensor)
        weights[tensor] = values.float() if values.is_floating_point() else values
    check_tied_copies(folder)
    embeddings = embedding_names(weights)
    if folder.tied and embeddings:
        for head in folder.tied_copies or ("lm_head.weight",):
            weights[head] = weights[embeddings[0]]
    return weights


def merge_tensors(
    plan: Plan, weights: Mapping[str, Mapping[str, Tensor]], *, base: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Execute a plan in memory; the same bits as `execute_plan` writes in float32 (§2.1).

    Parameters
    ----------
    weights
        Per checkpoint of the plan, its tensors as `load_weights` gives them (float32, finite). They are not
        changed; a result may share memory with them where a plan has one checkpoint.
    base
        The base's tensors; needed where `needs_base(plan)`.

    Returns
    -------
    dict[str, Tensor]
        float32, names as in the first checkpoint; tensors that are one object there (tied heads) are one object here.

    Raises
    ------
    MergeError
        If the base or a checkpoint is not given, or tensor names differ.
    OperatorError
        If an operator is unknown or two shapes differ.
    """
    steps = steps_of(plan)
    missing = [c for c in plan.checkpoints if c not in weights]
    if missing:
        raise MergeError(f"Plan {plan} names checkpoint {missing[0]!r}, whose weights were not given.")
    if base is None and any(s.operator.needs_base for s in steps):
        raise MergeError(f"Plan {plan} works on task vectors: give the base.")
    inputs = [weights[c] for c in plan.checkpoints]
    first = inputs[0]
    for checkpoint, other in zip(plan.checkpoints, inputs, strict=True):
        _check_names(plan.checkpoints[0], first, checkpoint, other)
    if base is not None and any(s.operator.needs_base for s in steps):
        _check_names(plan.checkpoints[0], first, "base", base)
    merged: dict[str, Tensor] = {}
    done: dict[tuple[int, ...], Tensor] = {}  # by identity of the inputs: a head that all of them tie is merged once
    for name, tensor in first.items():
        same = tuple(id(w[name]) for w in inputs)
        if same in done:
            merged[name] = done[same]
            continue
        value = tensor
        if tensor.is_floating_point():
            value = tensor.float()
            for step, other in zip(steps, inputs[1:], strict=True):
                theirs = other[name]
                mine = base[name] if base is not None and step.operator.needs_base else None
                if theirs.shape != value.shape or (mine is not None and mine.shape != value.shape):
                    raise MergeError(
                        f"Plan {plan}: tensor {name!r} has different shapes in the checkpoints: they cannot be merged."
                    )
                value = step.operator.apply(value, theirs, mine, step.for_tensor(name, value.numel()))
        merged[name] = done[same] = value
    return merged


def _check_names(first: str, mine: Mapping[str, Tensor], other: str, theirs: Mapping[str, Tensor]) -> None:
    if mine.keys() != theirs.keys():
        tensor = sorted(mine.keys() ^ theirs.keys())[0]
        raise MergeError(
            f"Checkpoints {first!r} and {other!r} do not have the same tensors: {tensor!r} is in one of them only."
        )
