"""Scoring of models: a live harness whose weights are exchanged, and the evaluation of one model or folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from simmerge_core.errors import EvaluationError
from simmerge_core.evaluation.store import SCORE_SCHEMA

if TYPE_CHECKING:
    from torch import Tensor

    from simmerge_core.catalog import Task
    from simmerge_core.evaluation.benchmark import LoadedBenchmark


class Scorer:
    """lm-eval's task objects and one live model, built once and used for any number of weights.

    Parameters
    ----------
    tasks
        Tasks that may be scored; each is loaded when it is first needed.
    model, tokenizer
        A causal Hugging Face model in memory (its weights are overwritten by `load`) and its tokenizer.
    device
        Where the model is put.
    batch_size
        In place of each benchmark's own batch size.
    seeds
        In place of each benchmark's own seeds.
    allow_network
        Whether lm-eval may download data.

    Notes
    -----
    lm-eval changes global state while it runs (random generators, log levels), which is put back: use one scorer at
    a time per process, and processes rather than threads to score in parallel.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        model: Any,
        tokenizer: Any,
        *,
        device: str = "cpu",
        batch_size: int | None = None,
        seeds: Sequence[int] | None = None,
        allow_network: bool = False,
    ) -> None:
        from simmerge_core.evaluation.live_model import LiveModel
        from simmerge_core.evaluation.surroundings import isolated_random, quiet

        if tokenizer is None:
            raise EvaluationError("A model in memory needs its tokenizer to be scored: give `tokenizer`.")
        self._override: dict[str, Any] = {}
        if batch_size is not None:
            self._override["batch_size"] = batch_size
        if seeds is not None:
            if not seeds:
                raise EvaluationError("No seeds were given to evaluate with: give at least one.")
            self._override["seeds"] = tuple(seeds)
        self.tasks = {task.id: task for task in tasks}
        self.model = model.to(device).eval()
        self._allow_network = allow_network
        self._loaded: dict[str, list[LoadedBenchmark]] = {}
        with quiet(), isolated_random():
            self._lm = LiveModel(pretrained=self.model, tokenizer=tokenizer, batch_size=256)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Put `weights` into the live model.

        Tied parameters may be given once or, equal, under each of their names.

        Raises
        ------
        EvaluationError
            Naming the tensor that is missing, unknown, of another shape, not finite, or in conflict with one that it
            is tied to.
        """
        import torch

        state = self.model.state_dict()
        unknown = sorted(set(weights) - set(state))
        if unknown:
            raise EvaluationError(
                f"The live model has no tensor {unknown[0]!r}: the weights are of another architecture."
            )
        filled: dict[int, str] = {}
        with torch.no_grad():
            for name, place in state.items():
                given = weights.get(name)
                if given is None:
                    continue
                if given.shape != place.shape:
                    raise EvaluationError(
                        f"Tensor {name!r} has shape {tuple(given.shape)}, but the live model has {tuple(place.shape)} "
                        "there: score checkpoints of one architecture and vocabulary together."
                    )
                if not bool(torch.isfinite(given).all()):
                    raise EvaluationError(f"Tensor {name!r} holds NaN or infinity: a model with it cannot be scored.")
                tied = filled.setdefault(place.data_ptr(), name)
                if tied != name and not torch.equal(weights[tied], given):
                    raise EvaluationError(
                        f"Tensors {tied!r} and {name!r} are tied in the live model but differ in the weights: "
                        "untie the model or merge them alike."
                    )
                place.copy_(given)
        missing = [name for name, place in state.items() if place.data_ptr() not in filled and place.numel()]
        if missing:
            raise EvaluationError(f"The weights lack the tensor {missing[0]!r} of the live model.")

    def score(self, task: Task | str) -> pl.DataFrame:
        """Score the live model on one task.

        Returns
        -------
        pl.DataFrame
            ``benchmark, metric, item_set, seed, utility, stderr, n``: one row per benchmark, declared metric key, item
            set and seed. `utility` is lm-eval's aggregate over the item set's documents; `stderr` is the standard
            error of a mean over items, null for metrics that are not means. Where seeds change nothing (no sampled
            few-shot examples, no sampled decoding) there is one row, with the first seed.

        Raises
        ------
        EvaluationError
            As `LoadedBenchmark`.
        """
        from simmerge_core.evaluation.surroundings import network

        rows: list[Any] = []
        for benchmark in self._benchmarks(task if isinstance(task, str) else task.id, task):
            with network(allowed=self._allow_network):
                rows += benchmark.score(self._lm)
        return pl.DataFrame(rows, schema=SCORE_SCHEMA, orient="row")

    def _benchmarks(self, task_id: str, task: Task | str) -> list[LoadedBenchmark]:
        from simmerge_core.evaluation.benchmark import LoadedBenchmark

        if task_id not in self.tasks:
            if isinstance(task, str):
                known = ", ".join(self.tasks)
                raise EvaluationError(f"Task {task_id!r} is not among those of this scorer: it has {known}.")
            self.tasks[task_id] = task
        if task_id not in self._loaded:
            self._loaded[task_id] = [
                LoadedBenchmark(
                    benchmark.model_copy(update=self._override), task_id=task_id, allow_network=self._allow_network
                )
                for benchmark in self.tasks[task_id].benchmarks
            ]
        return self._loaded[task_id]


def evaluate(
    model_or_dir: Any,
    task: Task,
    *,
    tokenizer: Any = None,
    device: str = "cpu",
    batch_size: int | None = None,
    seeds: Sequence[int] | None = None,
    allow_network: bool = False,
) -> pl.DataFrame:
    """Score one model on one task (§3.3) with lm-eval, in this process.

    Parameters
    ----------
    model_or_dir
        A Hugging Face checkpoint folder, or a causal model in memory (then `tokenizer` is needed).
    task
        The task; its score is the unweighted mean over its benchmarks' deciding metrics.
    device, batch_size, seeds, allow_network
        As `Scorer`.

    Returns
    -------
    pl.DataFrame
        As `Scorer.score`.

    Raises
    ------
    EvaluationError, CheckpointError
        Naming what is wrong, before anything is scored where it can be known before.
    """
    if isinstance(model_or_dir, (str, Path)):
        from simmerge_core.checkpoints import load_model
        from simmerge_core.evaluation.surroundings import quiet

        with quiet():
            model, own = load_model(Path(model_or_dir), device=device)
        tokenizer = tokenizer if tokenizer is not None else own
    else:
        model = model_or_dir
    scorer = Scorer(
        [task],
        model,
        tokenizer,
        device=device,
        batch_size=batch_size,
        seeds=seeds,
        allow_network=allow_network,
    )
    return scorer.score(task)


def check_task(task: Task, *, allow_network: bool = False) -> None:
    """Load every benchmark of `task` without a model, and refuse what cannot be scored.

    Raises
    ------
    EvaluationError
        Naming task and benchmark: no such lm-eval task, a metric key whose filter does not exist, code execution
        without consent, no or too few documents, item sets that are empty or overlap.
    """
    from simmerge_core.evaluation.benchmark import LoadedBenchmark

    for benchmark in task.benchmarks:
        LoadedBenchmark(benchmark, task_id=task.id, allow_network=allow_network)
