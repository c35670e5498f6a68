"""Build the demo catalog: resumable, and equal to the byte at any number of workers."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from simmerge_core.demo.checkpoint_folder import is_finished
from simmerge_core.demo.jobs import Job, run_job
from simmerge_core.demo.presets import PRESETS, DemoPreset
from simmerge_core.demo.recipes import base_recipe, expert_recipes
from simmerge_core.demo.task_files import write_catalog, write_tasks
from simmerge_core.demo.worker_pool import worker_pool
from simmerge_core.errors import CatalogError

Progress = Callable[[str, float], None]


@contextmanager
def _only_builder(out_dir: Path) -> Iterator[None]:
    """Hold the folder's build lock, which the system releases even when a build is killed."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with (out_dir / ".build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CatalogError(
                f"Another build of the demo catalog is at work in {out_dir}: wait for it, or choose another folder."
            ) from error
        yield


def _remove_remains(folders: Path) -> None:
    """Delete what a killed build left half written (the build lock says that nobody writes it now)."""
    for pattern in (".*.tmp", ".*.old"):
        for path in folders.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _jobs(out_dir: Path, preset: DemoPreset, *, seed: int) -> tuple[Job, list[Job]]:
    folders = out_dir / "checkpoints"
    recipe = base_recipe(preset, seed=seed)
    base = Job(recipe, recipe.fingerprint(), folders / recipe.checkpoint)
    experts = [
        Job(expert, expert.fingerprint(base.fingerprint), folders / expert.checkpoint, start=base.folder)
        for expert in expert_recipes(preset, seed=seed)
    ]
    return base, experts


class _StepCount:
    """Turns step reports of single checkpoints into the fraction of a stage."""

    def __init__(self, stage: str, jobs: list[Job], progress: Progress) -> None:
        self._stage, self._progress = stage, progress
        self._steps = {job.recipe.checkpoint: 0 for job in jobs}
        self._total = sum(job.recipe.steps for job in jobs)
        self._finished = sum(job.recipe.steps for job in jobs if is_finished(job.folder, job.fingerprint))
        self.unfinished = [job for job in jobs if not is_finished(job.folder, job.fingerprint)]

    def __call__(self, checkpoint: str, step: int) -> None:
        self._steps[checkpoint] = step
        self._progress(self._stage, (self._finished + sum(self._steps.values())) / self._total)


def build(
    out_dir: Path,
    *,
    preset: str = "demo",
    seed: int = 0,
    workers: int = 2,
    progress: Progress | None = None,
) -> Path:
    """Train the demo catalog into `out_dir`.

    Folders appear only when complete and carry the hash of their recipe, so that a build that was stopped goes on where
    it was, and a changed recipe or seed trains again exactly what depends on it.

    Parameters
    ----------
    out_dir
        Folder to create or to complete.
    preset
        "tiny" (6 experts, seconds, for tests), "demo" (25 experts) or "full" (30 experts) or "larger" (20
        experts of six times the parameters).
    seed
        Determines every byte of the result, on machines of one kind.
    workers
        Training processes, one thread each. Any number gives the same bytes; 1 trains in the calling process.
    progress
        Called with a stage ("tasks", "base", "experts") and the fraction of it that is done.

    Returns
    -------
    Path
        The catalog file, `out_dir / "catalog.yaml"`.

    Raises
    ------
    CatalogError
        If the preset does not exist, the packages with the words are missing, or another build works in `out_dir`.
    CheckpointError
        If a training process ended early.
    """
    if preset not in PRESETS:
        raise CatalogError(f"Demo preset {preset!r} does not exist: choose one of {', '.join(PRESETS)}.")
    if workers < 1:
        raise CatalogError(f"The demo catalog cannot be trained by {workers} workers: give at least 1.")
    size, out_dir = PRESETS[preset], Path(out_dir)
    report: Progress = progress or (lambda stage, fraction: None)
    with _only_builder(out_dir):
        _remove_remains(out_dir / "checkpoints")
        write_tasks(out_dir, size, seed=seed)
        report("tasks", 1.0)
        base, experts = _jobs(out_dir, size, seed=seed)
        base_count = _StepCount("base", [base], report)
        if base_count.unfinished or not all(is_finished(job.folder, job.fingerprint) for job in experts):
            _train(base, experts, workers=workers, report=report)
        report("base", 1.0)
        report("experts", 1.0)
        return write_catalog(out_dir, size, [(job.recipe.checkpoint, job.recipe.domain) for job in experts])


def _train(base: Job, experts: list[Job], *, workers: int, report: Progress) -> None:
    base_count = _StepCount("base", [base], report)
    if workers == 1:
        for job in base_count.unfinished:
            run_job(job, progress=lambda step: base_count("base", step))
        expert_count = _StepCount("experts", experts, report)
        for job in expert_count.unfinished:
            name = job.recipe.checkpoint
            run_job(job, progress=lambda step, name=name: expert_count(name, step))  # type: ignore[misc]
        return
    with worker_pool(workers) as pool:
        for job in base_count.unfinished:
            pool.train_together(job, base_count)
        expert_count = _StepCount("experts", experts, report)
        pool.train_each(expert_count.unfinished, expert_count)
