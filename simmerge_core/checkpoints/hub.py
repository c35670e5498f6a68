"""Where a catalog entry's files lie: a local folder, or a hub snapshot of one pinned revision."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from simmerge_core.errors import CheckpointError

_REVISION = re.compile(r"[0-9a-f]{40}")
# Weights as safetensors, configs and tokenizers; never pickles, never code.
ALLOWED_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")


def resolve(entry: Any, *, allow_hub: bool = False) -> Path:
    """The local folder of a catalog entry.

    Parameters
    ----------
    entry
        Catalog entry with `id` and either `path`, or `hub` (repository id) and `revision` (40 hex digits: a branch
        or tag could change under the same name, and a checkpoint is immutable).
    allow_hub
        Whether the network may be used; without it a hub entry is taken from the local cache only.

    Raises
    ------
    CheckpointError
        If the entry has no place, its revision is not pinned, or the snapshot cannot be had.
    """
    path, repository = getattr(entry, "path", None), getattr(entry, "hub", None)
    if path is not None:
        return Path(path)
    if repository is None:
        raise CheckpointError(f"Checkpoint {entry.id!r} names neither a path nor a hub repository: give it one.")
    revision = str(getattr(entry, "revision", None) or "")
    if not _REVISION.fullmatch(revision):
        raise CheckpointError(
            f"Checkpoint {entry.id!r}: revision {revision!r} of {repository} is not a commit of 40 hex digits: pin "
            "one, since names can move."
        )
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = huggingface_hub.snapshot_download(
            repo_id=repository, revision=revision, allow_patterns=list(ALLOWED_FILES), local_files_only=not allow_hub
        )
    except LocalEntryNotFoundError as error:
        remedy = "check the network" if allow_hub else "allow downloads (--allow-hub) or fetch it first"
        raise CheckpointError(
            f"Checkpoint {entry.id!r}: {repository} at {revision[:12]} is not in the local cache: {remedy}."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"Checkpoint {entry.id!r}: {repository} at {revision[:12]} cannot be downloaded: {reason}"
        ) from error
    return Path(folder)
