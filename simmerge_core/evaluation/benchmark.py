"""One benchmark of a task as a live lm-eval task: requests built once, scored as often as the weights change."""

from __future__ import annotations

import difflib
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simmerge_core.errors import EvaluationError
from simmerge_core.evaluation.definition import data_files, definition, definition_file
from simmerge_core.evaluation.live_model import Batch, LiveModel
from simmerge_core.evaluation.surroundings import code_execution, isolated_random, network, quiet

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from simmerge_core.catalog import Benchmark

PROBABILITY = "probability"
"""The metric key of the mean probability of the correct answer (log-likelihood benchmarks only)."""

Row = tuple[str, str, str, int, float, float | None, int]  # as SCORE_SCHEMA


class LoadedBenchmark:
    """An lm-eval task object with its requests, prepared for one live model's tokenizer.

    Parameters
    ----------
    benchmark
        The declaration in the catalog.
    task_id
        For error messages.
    allow_network
        Whether lm-eval may download data that is not on this machine.

    Raises
    ------
    EvaluationError
        Naming task and benchmark: unknown or unloadable lm-eval task, code execution without consent, another number
        of documents than declared, an item set that is empty, overlaps another or goes beyond the documents.
    """

    def __init__(self, benchmark: Benchmark, *, task_id: str, allow_network: bool = False) -> None:
        self.benchmark = benchmark
        self.where = f"Task {task_id!r}, benchmark {benchmark.name!r}"
        with quiet(), isolated_random(), network(allowed=allow_network):
            self.task = _load(benchmark, self.where, allow_network=allow_network)
            _set_fewshot(self.task, benchmark.num_fewshot)
        self.documents = len(self.task.eval_docs)
        self.item_sets = _item_sets(benchmark, self.documents, self.where)
        self.items = sorted(item for items in self.item_sets.values() for item in items)
        self._check_metrics()
        self.seeds = tuple(dict.fromkeys(benchmark.seeds)) if _seed_matters(self.task) else benchmark.seeds[:1]
        self._instances: dict[int, list[Any]] = {}
        self._batches: dict[int, list[Batch]] = {}

    def _check_metrics(self) -> None:
        """Refuse what can be refused without a model."""
        if PROBABILITY in self.benchmark.metrics and self.task.OUTPUT_TYPE != "loglikelihood":
            raise EvaluationError(
                f"{self.where}: metric 'probability' needs output_type loglikelihood, but this benchmark has "
                f"{self.task.OUTPUT_TYPE}: name another metric."
            )
        filters = [f.name for f in getattr(self.task, "_filters", [])]
        for metric in self.benchmark.metrics:
            name, comma, chosen = metric.partition(",")
            if metric != PROBABILITY and (not comma or chosen not in filters):
                known = [f"{m},{f}" for m in self.task.aggregation() for f in filters]
                raise EvaluationError(
                    f"{self.where}: metric key {metric!r} is not produced (metric {name!r}, filters "
                    f"{', '.join(filters)}): write one of {', '.join(known) or 'the keys that lm-eval prints'}."
                )
        names = {metric: metric.partition(",")[0] for metric in self.benchmark.metrics if metric != PROBABILITY}
        produced = self._rehearsed(set(names.values()))
        for metric, name in names.items():
            if produced is not None and name not in produced:
                known = [f"{m},{f}" for m in sorted(produced) for f in filters]
                raise EvaluationError(
                    f"{self.where}: metric key {metric!r} is not produced: write one of {', '.join(known)}."
                )

    def _rehearsed(self, wanted: set[str]) -> set[str] | None:
        """Metric names that made-up answers yield, document by document until all of `wanted` are there.

        None where answers cannot be made up: generated text may be executed, and a metric may depend on it.
        """
        produced: set[str] = set()
        answer = (-1.0, False)
        try:
            for item in self.items:
                doc = self.task.eval_docs[item]
                if self.task.OUTPUT_TYPE == "loglikelihood":
                    answers = [answer]
                elif self.task.OUTPUT_TYPE == "multiple_choice" and not self.task.multiple_input:
                    # acc_mutual_info asks for each choice a second time, without its context.
                    copies = 2 if "acc_mutual_info" in self.task.aggregation() else 1
                    answers = [answer] * (copies * len(self.task.doc_to_choice(doc)))
                else:
                    return None
                with isolated_random():
                    produced |= set(self.task.process_results(doc, answers))
                if wanted <= produced:
                    break
        except Exception:  # a task's own code may want more than made-up answers: then scoring will tell
            return None
        return produced

    def score(self, lm: LiveModel) -> list[Row]:
        """Score the weights that `lm` has now: one row per metric, item set and seed.

        Raises
        ------
        EvaluationError
            If the model gives log-likelihoods that are not numbers, or a metric key is not produced, is not finite or
            does not cover every document.
        """
        rows: list[Row] = []
        with quiet(), isolated_random(), code_execution(allowed=self.benchmark.unsafe_code):
            for seed in self.seeds:
                rows += self._score(lm, seed)
        return rows

    def _score(self, lm: LiveModel, seed: int) -> list[Row]:
        instances = self._requests(lm, seed)
        _seed_everything(seed)
        self._respond(lm, seed, instances)
        values = self._values(instances)
        rows: list[Row] = []
        for metric in self.benchmark.metrics:
            if metric == PROBABILITY:
                per_item = {doc: math.exp(of[0].resps[0][0]) for doc, of in self._by_document(instances).items()}
                aggregate: Callable[[list[Any]], float] = _mean
            else:
                if metric not in values:
                    raise EvaluationError(
                        f"{self.where}: metric key {metric!r} is not produced: the keys are {', '.join(values)}."
                    )
                per_item = values[metric]
                aggregate = self.task.aggregation().get(metric.partition(",")[0], _mean)
            for name, items in self.item_sets.items():
                rows.append(self._row(metric, name, seed, items, per_item, aggregate))
        return rows

    def _row(
        self,
        metric: str,
        item_set: str,
        seed: int,
        items: Sequence[int],
        per_item: dict[int, Any],
        aggregate: Callable[[list[Any]], float],
    ) -> Row:
        absent = [item for item in items if item not in per_item]
        if absent:
            raise EvaluationError(
                f"{self.where}: metric key {metric!r} has no value for {len(absent)} of {len(items)} documents of item "
                f"set {item_set!r} (first: document {absent[0]}): use a metric that covers every document."
            )
        chosen = [per_item[item] for item in items]
        utility = float(aggregate(chosen))
        if not math.isfinite(utility):
            raise EvaluationError(
                f"{self.where}: metric key {metric!r} is {utility} on item set {item_set!r}: check the model's weights."
            )
        stderr = None
        if _is_mean(aggregate) and len(chosen) > 1:
            # Standard error of a mean over items: sample standard deviation (n - 1) by root n, in float64.
            stderr = float(np.std(np.asarray(chosen, np.float64), ddof=1) / math.sqrt(len(chosen)))
        return (self.benchmark.name, metric, item_set, seed, utility, stderr, len(chosen))

    def _requests(self, lm: LiveModel, seed: int) -> list[Any]:
        if seed not in self._instances:
            self.task.set_fewshot_seed(seed=seed)
            whole = len(self.items) == self.documents
            self.task.build_all_requests(samples=None if whole else self.items)
            instances = list(self.task.instances)
            kinds = {instance.request_type for instance in instances}
            if kinds == {"loglikelihood"} and lm.backend == "causal" and all(i.repeats in (None, 1) for i in instances):
                self._batches[seed] = lm.prepared(lm.tokenised(instances), batch_size=self.benchmark.batch_size)
            self._instances[seed] = instances
        return self._instances[seed]

    def _respond(self, lm: LiveModel, seed: int, instances: list[Any]) -> None:
        """Ask the model and put the answers into the instances, as `lm_eval.evaluator.evaluate` does."""
        for instance in instances:
            instance.resps, instance.filtered_resps = [], {}
        if seed in self._batches:
            for instance, answer in zip(instances, lm.scored(self._batches[seed]), strict=True):
                instance.resps.append(answer)
        else:
            lm.batch_size_per_gpu = self.benchmark.batch_size
            by_kind: dict[str, list[Any]] = defaultdict(list)
            for instance in instances:
                by_kind[instance.request_type] += [instance] * (instance.repeats or 1)
            for kind, requests in by_kind.items():
                answers = getattr(lm, kind)(requests, disable_tqdm=True)
                for instance, answer in zip(requests, answers, strict=True):
                    instance.resps.append(answer)
        for instance in instances:
            if instance.request_type.startswith("loglikelihood"):
                answer = instance.resps[0]
                if math.isnan(answer[0] if isinstance(answer, tuple) else answer):
                    raise EvaluationError(
                        f"{self.where}: the model's log-likelihood of document {self.items[instance.doc_id]} is not a "
                        "number: check its weights for NaN or infinity."
                    )
        self.task._instances = instances
        self.task.apply_filters()

    def _by_document(self, instances: list[Any]) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = defaultdict(list)
        for instance in instances:
            found[self.items[instance.doc_id]].append(instance)
        return {doc: sorted(of, key=lambda instance: instance.idx) for doc, of in found.items()}

    def _values(self, instances: list[Any]) -> dict[str, dict[int, Any]]:
        """Per-document values by metric key, in document order."""
        values: dict[str, dict[int, Any]] = defaultdict(dict)
        by_document = self._by_document(instances)
        for name in instances[0].filtered_resps:
            for doc, of in by_document.items():
                metrics = self.task.process_results(of[0].doc, [i.filtered_resps[name] for i in of])
                for metric, value in metrics.items():
                    values[f"{metric},{name}"][doc] = value
        return dict(values)


def _mean(values: list[float]) -> float:
    # Summed left to right like lm-eval's own mean, so that both agree to the last digit.
    return sum(values) / len(values)


def _is_mean(aggregate: Callable[[list[Any]], float]) -> bool:
    from lm_eval.api.metrics import mean

    return aggregate is _mean or aggregate is mean


def _seed_everything(seed: int) -> None:
    """Seed the global generators, which sampled decoding uses; called only where they are given back afterwards."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _seed_matters(task: Any) -> bool:
    """Whether another seed can change anything: sampled few-shot examples, or sampled decoding."""
    generation = task.get_config("generation_kwargs") or {}
    fewshot = task.get_config("fewshot_config")
    fixed = getattr(fewshot, "sampler", None) == "first_n"
    sampled_examples = bool(task.get_config("num_fewshot")) and not fixed
    return sampled_examples or (task.OUTPUT_TYPE == "generate_until" and bool(generation.get("do_sample")))


def _set_fewshot(task: Any, num_fewshot: int | None) -> None:
    # As lm-eval's `simple_evaluate`: a task that fixes zero examples keeps zero.
    own = task.get_config("num_fewshot")
    if num_fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)


def _item_sets(benchmark: Benchmark, documents: int, where: str) -> dict[str, list[int]]:
    if benchmark.documents is not None and benchmark.documents != documents:
        raise EvaluationError(
            f"{where}: the catalog declares {benchmark.documents} documents, but lm-eval finds {documents}: "
            "correct `documents` or the data."
        )
    found: dict[str, list[int]] = {}
    owner: dict[int, str] = {}
    for name, text in benchmark.item_sets.items():
        parts = [int(p) if p else None for p in text.split(":")]
        items = list(range(documents)[slice(*parts)])
        if not items or (parts[1] is not None and parts[1] > documents):
            raise EvaluationError(
                f"{where}: item set {name!r} asks for documents {text}, but there are {documents}: correct the slice."
            )
        for item in items:
            if owner.setdefault(item, name) != name:
                raise EvaluationError(
                    f"{where}: document {item} is in the item sets {owner[item]!r} and {name!r}: make them disjoint, "
                    "for they measure the noise of each other."
                )
        found[name] = items
    return found


@lru_cache(maxsize=2)
def _manager(include_path: Path | None) -> TaskManager:
    from lm_eval.tasks import TaskManager

    # Indexing lm-eval's own tasks takes seconds; it is done only for a benchmark that is one of them.
    return TaskManager(include_path=str(include_path) if include_path else None, include_defaults=True)


def _load(benchmark: Benchmark, where: str, *, allow_network: bool) -> Any:
    from lm_eval.tasks import TaskManager

    file = definition_file(benchmark)
    manager = TaskManager(include_defaults=False) if file else _manager(benchmark.include_path)
    if file is None:
        entry = manager.task_index.get(benchmark.name)
        if entry is None or benchmark.name not in manager.all_subtasks:
            what = "is not known to lm-eval" if entry is None else "is a group of lm-eval, not a single task"
            close = difflib.get_close_matches(benchmark.name, manager.all_subtasks, n=3)
            raise EvaluationError(
                f"{where} {what}: name a task of lm-eval or give include_path"
                + (f" (close names: {', '.join(close)})." if close else ".")
            )
        file = Path(entry.yaml_path) if entry.yaml_path else None
        local = False
    else:
        local = True
    content = definition(file) if file is not None else {}
    if content.get("unsafe_code") and not benchmark.unsafe_code:
        raise EvaluationError(
            f"{where} executes code that the model writes: set `unsafe_code: true` on the benchmark if this machine "
            "is sealed off for that."
        )
    try:
        with code_execution(allowed=benchmark.unsafe_code):
            if local and file is not None:
                task = _local_task(manager, file, content)
            else:
                task = manager.load([benchmark.name])["tasks"][benchmark.name]
    except EvaluationError:
        raise
    except Exception as error:  # lm-eval and datasets raise many kinds here
        offline = "" if allow_network else " (the network is off: fetch the data first, or allow it with --allow-hub)"
        text = " ".join(str(error).split())[:400]
        raise EvaluationError(
            f"{where} cannot be loaded by lm-eval{offline}: {type(error).__name__}: {text}."
        ) from error
    if getattr(task, "UNSAFE_CODE", False) and not benchmark.unsafe_code:
        raise EvaluationError(f"{where} executes code that the model writes: set `unsafe_code: true` on the benchmark.")
    return task


def _local_task(manager: Any, file: Path, content: dict[str, Any]) -> Any:
    """The task of a local YAML, with its data files made absolute (lm-eval takes them from the working folder)."""
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(file)
    files = data_files(content, file.resolve().parent)
    if files:
        absolute = {split: [str(path) for path in paths] for split, paths in files.items()}
        config["dataset_kwargs"] = {**(config.get("dataset_kwargs") or {}), "data_files": absolute}
    (task,) = manager.load([config])["tasks"].values()
    return task
