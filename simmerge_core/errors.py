"""What a user did that cannot work, each said in one sentence that names the thing, the fault and the remedy."""

from __future__ import annotations


class SimMergeError(Exception):
    """Base of every error a user can cause; the command line prints it without a traceback."""


class CatalogError(SimMergeError):
    """The catalog file, or an entry of it, is not usable."""


class CheckpointError(SimMergeError):
    """A checkpoint folder is missing, incomplete, damaged or does not fit the others."""


class OperatorError(SimMergeError):
    """An operator or action is unknown, or its parameters are out of range."""


class MergeError(SimMergeError):
    """A plan cannot be executed."""


class ProbeError(SimMergeError):
    """A probe set or a cached probe record is not usable."""


class EvaluationError(SimMergeError):
    """A benchmark cannot be run, or did not give what its declaration promises."""


class TableError(SimMergeError):
    """A table does not satisfy its declared schema."""


class StorageError(SimMergeError):
    """The data root's object store cannot be used, or does not keep to what results rest on."""


class SelectionError(SimMergeError):
    """A selector cannot be trained or asked: too few rows, unknown features, unknown checkpoints."""


class BanditError(SimMergeError):
    """A bandit is asked with a context, an arm, a reward or a log that it cannot use."""
