"""Content hash of a checkpoint, the same however it is sharded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from simmerge_core.checkpoints.folder import CheckpointFolder
from simmerge_core.checkpoints.header import TensorEntry
from simmerge_core.errors import CheckpointError
from simmerge_core.files import hash_json

# Fields of config.json that change with the saving program or how a model is run, not what it computes.
_INCIDENTAL = {
    "_name_or_path", "_attn_implementation", "_commit_hash", "transformers_version", "torch_dtype", "dtype",
    "use_cache", "output_attentions", "output_hidden_states", "return_dict", "chunk_size_feed_forward",
    "is_encoder_decoder", "id2label", "label2id", "problem_type",
}  # fmt: skip
_READ = 1 << 22  # bytes per read


def fingerprint(folder: CheckpointFolder) -> str:
    """SHA-256 (hex) of names, dtypes, shapes and bytes of all tensors in name order, and of the architecture.

    Independent of sharding, of the order in the files and of who saved the config.
    """
    return combine_digests(
        folder.config, {e.name: (e.dtype, e.shape, tensor_digest(folder, e)) for e in folder.tensors.values()}
    )


def tensor_digest(folder: CheckpointFolder, entry: TensorEntry) -> str:
    """SHA-256 (hex) of one tensor's bytes."""
    digest = hashlib.sha256()
    left = entry.end - entry.begin
    with entry.file.open("rb") as handle:
        handle.seek(entry.begin)
        while left:
            data = handle.read(min(left, _READ))
            if not data:
                raise CheckpointError(
                    f"Checkpoint {folder.name!r}: {entry.file.name} ends inside tensor {entry.name!r}: copy it again."
                )
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


def combine_digests(config: Mapping[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...], str]]) -> str:
    """The fingerprint from each tensor's dtype, shape and digest, so that a merge can hash while it streams."""
    return hash_json(
        {
            "config": {k: v for k, v in config.items() if k not in _INCIDENTAL},
            "tensors": [[name, dtype, list(shape), digest] for name, (dtype, shape, digest) in sorted(tensors.items())],
        }
    )
