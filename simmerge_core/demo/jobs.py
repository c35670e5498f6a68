"""Train one checkpoint from its recipe to its folder: what a worker process, or the building process itself, does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from simmerge_core.demo.checkpoint_folder import read_parameters, write_checkpoint
from simmerge_core.demo.recipes import Recipe
from simmerge_core.demo.training import Exchange, TrainingState, initial_parameters, train
from simmerge_core.files import write_atomically

SAVE_EVERY = 200  # steps between two saves of the base's training state (a save takes milliseconds)


@dataclass(frozen=True)
class Job:
    """One checkpoint to train. `start` is the folder of the checkpoint it starts from (None: initial parameters)."""

    recipe: Recipe
    fingerprint: str
    folder: Path
    start: Path | None = None

    @property
    def state_file(self) -> Path:
        """Where the state of an unfinished base is kept."""
        return self.folder.with_name(f".{self.folder.name}.state.safetensors")

    def as_dict(self) -> dict[str, Any]:
        """The job as JSON values."""
        return {
            "recipe": self.recipe.as_dict(),
            "fingerprint": self.fingerprint,
            "folder": str(self.folder),
            "start": None if self.start is None else str(self.start),
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Job:
        """Inverse of `as_dict`."""
        start = value["start"]
        return cls(
            Recipe.from_dict(value["recipe"]),
            value["fingerprint"],
            Path(value["folder"]),
            None if start is None else Path(start),
        )


def _saved_state(job: Job) -> TrainingState | None:
    """State of an interrupted base of exactly this recipe, if there is one."""
    if not job.state_file.is_file():
        return None
    try:
        with safe_open(job.state_file, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("fingerprint") != job.fingerprint:
                return None
            parameters, first, second = (file.get_tensor(name) for name in ("parameters", "first", "second"))
            return TrainingState(parameters, first, second, int(metadata["step"]))
    except SafetensorError:
        return None


def _save_state(job: Job, state: TrainingState) -> None:
    tensors = {"parameters": state.parameters, "first": state.first, "second": state.second}
    with write_atomically(job.state_file) as temporary:
        save_file(tensors, temporary, metadata={"fingerprint": job.fingerprint, "step": str(state.step)})


def run_job(
    job: Job,
    *,
    progress: Callable[[int], None],
    shard: int | None = None,
    exchange: Exchange | None = None,
) -> None:
    """Train and write the checkpoint; of several participants only the first writes.

    An interrupted base goes on from its last saved state; an expert is short enough to begin again.
    """
    is_base = job.start is None
    is_writer = shard in (None, 0)
    state = _saved_state(job) if is_base else None
    if state is None:
        start = (
            initial_parameters(job.recipe) if job.start is None else read_parameters(job.start, job.recipe.architecture)
        )
        state = TrainingState.start(start)

    def after(step: int) -> None:
        progress(step)
        if is_base and is_writer and step % SAVE_EVERY == 0 and step < job.recipe.steps:
            _save_state(job, state)

    train(job.recipe, state, progress=after, shard=shard, exchange=exchange)
    if is_writer:
        write_checkpoint(job.folder, state.parameters, job.recipe, fingerprint=job.fingerprint)
        job.state_file.unlink(missing_ok=True)
