"""The row of table `checkpoints` that describes one checkpoint."""

from __future__ import annotations

import polars as pl

from simmerge_core.checkpoints.folder import CheckpointFolder


def manifest(folder: CheckpointFolder, *, checkpoint: str, domain: str, base: str, fingerprint: str) -> pl.DataFrame:
    """One row of table `checkpoints`, with its partition column `checkpoint` first.

    Parameters
    ----------
    checkpoint, base
        Catalog ids.
    domain
        Task it was tuned for, ``base`` for the base.
    fingerprint
        From `checkpoints.fingerprint`.
    """
    return pl.DataFrame(
        {
            "checkpoint": [checkpoint],
            "domain": [domain],
            "base": [base],
            "fingerprint": [fingerprint],
            "path": [str(folder.path)],
            "architecture": [folder.architecture],
            "dtype": [folder.dtype],
            "parameters": [folder.parameters],
            "layers": [folder.layers],
            "width": [folder.width],
            "vocabulary": [folder.vocabulary],
            "tensors": [len(folder.tensors)],
            "bytes": [folder.bytes],
        }
    )
