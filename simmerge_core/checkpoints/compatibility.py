"""Whether checkpoints can be merged at all, decided from headers, configs and tokenizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simmerge_core.checkpoints.folder import CheckpointFolder
from simmerge_core.errors import CheckpointError

# Fields that give the same shapes another meaning.
_STRUCTURE = ("num_attention_heads", "num_key_value_heads", "head_dim", "n_head", "hidden_act", "hidden_activation")


def check_compatible(folders: Sequence[CheckpointFolder]) -> None:
    """Refuse checkpoints whose architecture, vocabulary, tensors or shapes differ from the first one's.

    Raises
    ------
    CheckpointError
        Naming both checkpoints and what differs.
    """
    for other in folders[1:]:
        _check_pair(folders[0], other)


def _check_pair(first: CheckpointFolder, other: CheckpointFolder) -> None:
    pair = f"Checkpoints {first.name!r} and {other.name!r}"
    if first.config.get("model_type") != other.config.get("model_type") or first.architecture != other.architecture:
        raise CheckpointError(
            f"{pair} have different architectures ({first.architecture}, {other.architecture}): only checkpoints "
            "of one base can be merged."
        )
    if first.vocabulary != other.vocabulary:
        raise CheckpointError(
            f"{pair} have different vocabularies ({first.vocabulary} and {other.vocabulary} embedding rows): only "
            "checkpoints of one base can be merged."
        )
    if first.tied != other.tied:
        tied = first.name if first.tied else other.name
        raise CheckpointError(
            f"{pair} differ in their output head: {tied!r} ties it to the embedding and the other does not."
        )
    for field in _STRUCTURE:
        if field in first.config and field in other.config and first.config[field] != other.config[field]:
            raise CheckpointError(
                f"{pair} have different architectures ({field} {first.config[field]} and {other.config[field]}): "
                "only checkpoints of one base can be merged."
            )
    for name, entry in first.tensors.items():
        twin = other.tensors.get(name)
        if twin is None:
            raise CheckpointError(
                f"{pair}: tensor {name!r} is missing in {other.name!r}: only checkpoints of one architecture can "
                "be merged."
            )
        if twin.shape != entry.shape:
            raise CheckpointError(
                f"{pair}: tensor {name!r} has shapes {list(entry.shape)} and {list(twin.shape)}: they cannot be merged."
            )
        if entry.is_float != twin.is_float or (not entry.is_float and entry.dtype != twin.dtype):
            raise CheckpointError(
                f"{pair}: tensor {name!r} has dtypes {entry.dtype} and {twin.dtype}: they cannot be merged."
            )
    extra = next((n for n in other.tensors if n not in first.tensors), None)
    if extra is not None:
        raise CheckpointError(
            f"{pair}: tensor {extra!r} is missing in {first.name!r}: only checkpoints of one architecture can be "
            "merged."
        )
    mine, theirs = vocabulary_of(first.path), vocabulary_of(other.path)
    if mine is not None and theirs is not None and mine != theirs:
        raise CheckpointError(
            f"{pair} have tokenizers with different vocabularies: the same embedding row would mean different tokens; "
            "only checkpoints of one base can be merged."
        )


def vocabulary_of(folder: Path) -> Any:
    """The vocabulary in ``tokenizer.json`` (token → id, or a list), None where there is no such file."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        model = json.loads(file.read_text(encoding="utf-8"))["model"]
        return model.get("vocab")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"Checkpoint folder {folder}: tokenizer.json is damaged ({error}): copy it again."
        ) from error
