"""Merging and scoring in one process: one live model, one harness, and the weights in use kept in memory."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmerge_core.catalog.model import Task
from simmerge_core.errors import SimMergeError
from simmerge_core.plans import plan_of

if TYPE_CHECKING:
    from torch import Tensor

    from simmerge_core.evaluation import Scorer

_HOT_BYTES = 2 * 1024**3  # of float32 weights kept besides those that the plan at hand needs


@dataclass(frozen=True)
class Setting:
    """What a process needs to know once; goes to workers as JSON."""

    tasks: str  # the catalog's tasks, as JSON
    folders: dict[str, str]  # checkpoint id (the base too) to its folder
    base: str
    dtype: str
    device: str
    allow_network: bool

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Job:
    """One model and the tasks on which it is scored."""

    number: int
    checkpoints: tuple[str, ...]
    actions: tuple[str, ...]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """Scores by task (rows in the order of `SCORE_SCHEMA`), or what went wrong and with which checkpoint."""

    number: int
    scores: dict[str, list[list[Any]]]
    error: str | None = None
    checkpoint: str | None = None


class Bench:
    """Answers jobs one after the other; a fault of one checkpoint is its jobs' answer and stops nothing."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.tasks = [Task.model_validate(task) for task in json.loads(setting.tasks)]
        self._hot: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._broken: dict[str, str] = {}

    @cached_property
    def scorer(self) -> Scorer:
        """The live harness, with the base's architecture and tokenizer."""
        import torch

        from simmerge_core.checkpoints import load_model
        from simmerge_core.evaluation import Scorer
        from simmerge_core.evaluation.surroundings import quiet

        folder = Path(self.setting.folders[self.setting.base])
        with quiet():
            model, tokenizer = load_model(folder, dtype=getattr(torch, self.setting.dtype))
        return Scorer(
            self.tasks, model, tokenizer, device=self.setting.device, allow_network=self.setting.allow_network
        )

    def answer(self, job: Job) -> Answer:
        """Merge once, score on each of the job's tasks, on one torch thread (results do not depend on the machine)."""
        from simmerge_core.merging import merge_tensors, needs_base
        from simmerge_core.probes.one_thread import one_thread

        scores: dict[str, list[list[Any]]] = {}
        try:
            with one_thread():
                plan = plan_of(list(job.checkpoints), list(job.actions))
                wanted = [*job.checkpoints, *([self.setting.base] if needs_base(plan) else [])]
                for checkpoint in wanted:
                    if checkpoint in self._broken:
                        return Answer(job.number, {}, self._broken[checkpoint], checkpoint)
                    try:
                        self._weights(checkpoint, keep=wanted)
                    except (SimMergeError, OSError, ValueError, KeyError, RuntimeError) as error:
                        self._broken[checkpoint] = _one_line(error)
                        return Answer(job.number, {}, self._broken[checkpoint], checkpoint)
                merged = merge_tensors(
                    plan,
                    {c: self._hot[c] for c in job.checkpoints},
                    base=self._hot[self.setting.base] if needs_base(plan) else None,
                )
                self.scorer.load(merged)
                for task in job.tasks:
                    scores[task] = [list(row) for row in self.scorer.score(task).rows()]
        except SimMergeError as error:
            return Answer(job.number, scores, _one_line(error))
        except (RuntimeError, ValueError, MemoryError) as error:
            return Answer(job.number, scores, f"{type(error).__name__}: {_one_line(error)}")
        return Answer(job.number, scores)

    def _weights(self, checkpoint: str, *, keep: Sequence[str]) -> None:
        """Have the float32 weights of `checkpoint` in memory; the least recently used leave, but none of `keep`."""
        from simmerge_core.merging import load_weights

        if checkpoint in self._hot:
            self._hot.move_to_end(checkpoint)
            return
        weights = load_weights(Path(self.setting.folders[checkpoint]), name=checkpoint)
        self._hot[checkpoint] = weights
        for old in [c for c in self._hot if c not in keep]:
            if sum(_bytes(w) for w in self._hot.values()) <= _HOT_BYTES:
                break
            del self._hot[old]


def _bytes(weights: dict[str, Tensor]) -> int:
    return sum(values.numel() * values.element_size() for values in weights.values())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
