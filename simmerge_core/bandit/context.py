"""What a decision is made on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Context:
    """The representation z(s) of one merge step on its task (§2.4).

    Attributes
    ----------
    z
        (d,) float64.
    source
        Key of the encoder that made it, which fixes the features and their version; empty for plain vectors.
    tasks
        Weight of each target task, by id, for the levels of tasks that joined a bandit later.
    """

    z: np.ndarray
    source: str = ""
    tasks: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        z = np.array(self.z, dtype=np.float64)
        z.setflags(write=False)  # what was logged is what was decided on
        object.__setattr__(self, "z", z)
        # Built-in types: the hash must be the same when the context is read back from a log.
        tasks = tuple((str(task), float(weight)) for task, weight in self.tasks)
        object.__setattr__(self, "tasks", tasks)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of source, tasks and coordinates."""
        digest = hashlib.sha256(f"{self.source}|{self.tasks!r}|".encode())
        digest.update(np.ascontiguousarray(self.z, dtype="<f8").tobytes())
        return digest.hexdigest()
