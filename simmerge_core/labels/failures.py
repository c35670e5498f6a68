"""What could not be labelled, collected while everything else was."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from simmerge_core.errors import EvaluationError

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Failure:
    """One model that could not be scored.

    Attributes
    ----------
    plan
        The plan, in words.
    checkpoint
        The checkpoint at fault, where one is.
    text
        What is wrong, in one sentence.
    """

    plan: str
    checkpoint: str | None
    text: str


class LabelFailures(EvaluationError):
    """Raised after all that could be scored is in the store.

    Attributes
    ----------
    failures
        One per model that could not be scored.
    frame
        The rows of all others, as the function would have returned them.
    """

    def __init__(self, failures: Sequence[Failure], frame: pl.DataFrame) -> None:
        self.failures = tuple(failures)
        self.frame = frame
        by_fault: dict[str, int] = defaultdict(int)
        for failure in self.failures:
            named = f"checkpoint {failure.checkpoint!r}" if failure.checkpoint else f"merge {failure.plan}"
            by_fault[f"{named}: {failure.text}"] += 1
        lines = [f"{fault} ({n} models)" if n > 1 else fault for fault, n in by_fault.items()]
        more = f" … and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        super().__init__(
            f"{len(self.failures)} models could not be scored; all others are scored and stored. "
            + " | ".join(lines[:_SHOWN])
            + more
        )

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Ids of the checkpoints at fault, sorted."""
        return tuple(sorted({f.checkpoint for f in self.failures if f.checkpoint is not None}))
