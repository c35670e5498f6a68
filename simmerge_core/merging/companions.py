"""The files beside the weights: config, tokenizer, model card, provenance, equivalent mergekit config."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmerge_core.checkpoints.compatibility import vocabulary_of
from simmerge_core.checkpoints.folder import CheckpointFolder
from simmerge_core.errors import MergeError
from simmerge_core.files import write_json
from simmerge_core.merging.mergekit import mergekit_config
from simmerge_core.merging.model_card import model_card
from simmerge_core.plans import recipe

if TYPE_CHECKING:
    from simmerge_core.merging.execute import MergedCheckpoint

# What a tokenizer is made of; any one of the first group makes a folder a source of tokenizers.
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tokenizer_config.json")
_BESIDE = (
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)


def companion_files(inputs: Sequence[CheckpointFolder], *, base: Path | None, chosen: Path | None) -> list[Path]:
    """Tokenizer and generation files of `chosen`, else of the first checkpoint that has a tokenizer, else of the base.

    Raises
    ------
    MergeError
        If the chosen folder has no tokenizer, or its tokenizer has more tokens than the embedding has rows.
    """
    candidates = [chosen] if chosen is not None else [*(f.path for f in inputs), *([Path(base)] if base else [])]
    for folder in candidates:
        if any((folder / name).is_file() for name in _TOKENIZER):
            _check_tokens(folder, inputs[0])
            return [folder / name for name in (*_TOKENIZER, *_BESIDE) if (folder / name).is_file()]
    if chosen is not None:
        raise MergeError(f"Folder {chosen} has no tokenizer to copy: name one that has.")
    return []


def _check_tokens(folder: Path, first: CheckpointFolder) -> None:
    vocabulary = vocabulary_of(folder)
    if isinstance(vocabulary, (dict, list)) and first.vocabulary and len(vocabulary) > first.vocabulary:
        raise MergeError(
            f"The tokenizer in {folder} has {len(vocabulary)} tokens, but checkpoint {first.name!r} has "
            f"{first.vocabulary} embedding rows: "
            "take the tokenizer that the checkpoints were trained with."
        )


def merged_config(first: CheckpointFolder, *, dtype: str) -> dict[str, Any]:
    """The first checkpoint's config with the output's dtype and without its origin."""
    config = {k: v for k, v in first.config.items() if k not in {"_name_or_path", "torch_dtype", "dtype"}}
    config["dtype"] = dtype if "+" not in dtype else first.dtype
    return config


def write_companions(
    folder: Path,
    merged: MergedCheckpoint,
    *,
    config: Mapping[str, Any],
    copies: Sequence[Path],
    paths: Mapping[str, Path],
    base: CheckpointFolder | None,
    provenance: Mapping[str, Any],
) -> None:
    """Write every file beside the weights into `folder`."""
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in copies:
        shutil.copyfile(file, folder / file.name)
    write_json(folder / "simmerge.json", _provenance(merged, provenance))
    sources = provenance.get("sources")
    names = {c: str(sources.get(c, c)) if isinstance(sources, Mapping) else c for c in merged.plan.checkpoints}
    (folder / "README.md").write_text(model_card(merged, names=names), encoding="utf-8")
    text = mergekit_config(merged.plan, paths=paths, base=None if base is None else base.path, dtype=merged.dtype)
    (folder / "mergekit_config.yml").write_text(text, encoding="utf-8")


def _provenance(merged: MergedCheckpoint, given: Mapping[str, Any]) -> dict[str, Any]:
    plan = merged.plan
    return {
        "plan": {"text": str(plan), "checkpoints": list(plan.checkpoints), "actions": [str(a) for a in plan.actions]},
        "recipe": recipe(
            plan, fingerprints=merged.fingerprints, base_fingerprint=merged.base_fingerprint, dtype=merged.dtype
        ),
        "recipe_key": merged.recipe_key,
        "fingerprint": merged.fingerprint,
        "parameters": merged.parameters,
        "given": dict(given),
        "versions": {"python": platform.python_version(), "simmerge": _version("simmerge"), "torch": _version("torch")},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
