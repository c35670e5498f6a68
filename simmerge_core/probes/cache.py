"""Where probe records lie under a data root: ``probe_activations/checkpoint=…/task=…/probe.safetensors``."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from simmerge_core.errors import ProbeError
from simmerge_core.storage import Location
from simmerge_core.tables.store import DataRoot

if TYPE_CHECKING:
    from simmerge_core.probes.record import ProbeRecord

_ARTEFACT = "probe_activations"
_FILE = "probe.safetensors"


def probe_path(root: DataRoot, checkpoint: str, task: str) -> Location:
    """File of the record of one checkpoint on one task, whether or not it exists."""
    return root.folder(_ARTEFACT, checkpoint=checkpoint, task=task) / _FILE


def is_cached(root: DataRoot, checkpoint: str, task: str) -> bool:
    """Whether a record exists; its content is not looked at."""
    return probe_path(root, checkpoint, task).is_file()


def cached(
    root: DataRoot, checkpoint: str, task: str, *, fingerprint: str | None = None, probe_key: str | None = None
) -> ProbeRecord:
    """The record of one checkpoint on one task.

    Parameters
    ----------
    fingerprint, probe_key
        What the record must have been computed from; None accepts any.

    Raises
    ------
    ProbeError
        Naming checkpoint and task: no record, a damaged one, or one of another checkpoint or probe set.
    """
    from simmerge_core.probes.record import ProbeRecord

    path = probe_path(root, checkpoint, task)
    if not path.is_file():
        raise ProbeError(
            f"Checkpoint {checkpoint!r} has no probe record on task {task!r} (expected {path}): "
            "materialize probe_activations for it."
        )
    try:
        return ProbeRecord.load(path, fingerprint=fingerprint, probe_key=probe_key)
    except ProbeError as error:
        raise ProbeError(f"Checkpoint {checkpoint!r} on task {task!r}: {error}") from error


def cached_checkpoints(root: DataRoot, task: str) -> list[str]:
    """Ids of the checkpoints that have a record on the task, sorted."""
    files = (root.root / _ARTEFACT).glob(f"checkpoint=*/task={urllib.parse.quote(task, safe='')}/{_FILE}")
    return sorted(urllib.parse.unquote(file.parent.parent.name.removeprefix("checkpoint=")) for file in files)
