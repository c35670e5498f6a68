"""Scores of many models, each evaluated once ever: pairs, k-way plans, and the checkpoints themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from simmerge_core.errors import EvaluationError, SimMergeError
from simmerge_core.evaluation.definition import evaluation_key, task_key, tokenizer_key
from simmerge_core.evaluation.store import SCORE_SCHEMA, EvaluationStore
from simmerge_core.labels.bench import Job, Setting
from simmerge_core.labels.failures import Failure, LabelFailures
from simmerge_core.labels.pace import Pace, Progress
from simmerge_core.labels.pool import answers
from simmerge_core.operators.actions import Action, parse_action
from simmerge_core.plans import Plan, plan_of, recipe_key

if TYPE_CHECKING:
    from simmerge_core.catalog import Catalog

_DTYPES = ("float32", "bfloat16", "float16")
_META: dict[str, type[pl.DataType]] = {
    "request": pl.Int64,
    "task": pl.String,
    "recipe_key": pl.String,
    "evaluation_key": pl.String,
}


def score_plans(
    requests: Sequence[tuple[Plan, str]],
    catalog: Catalog,
    *,
    store: EvaluationStore,
    fingerprints: Mapping[str, str],
    workers: int = 1,
    dtype: str = "float32",
    device: str = "cpu",
    allow_network: bool = False,
    unusable: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Scores of (plan, task) requests: from the store where they are, else merged in memory and evaluated.

    A model is merged once for all tasks it is wanted on, straight into a live model; nothing is written but the
    store. What is evaluated goes to the store every few seconds, so that a killed run goes on where it was. The
    results do not depend on the number of workers, nor on the order of the requests.

    Parameters
    ----------
    requests
        Plans over ids of the catalog (the base's too; a plan of one checkpoint is that checkpoint) with a task id.
        Repeats are allowed.
    fingerprints
        Content hash by checkpoint id, and of the base.
    workers
        Processes that merge and score, on one torch thread each; 1 is this process.
    unusable
        What is wrong, by checkpoint id, with those that must not be read: other weights than `fingerprints` says, say,
        whose scores would be kept as those of the weights before.
    dtype
        Of the scored weights: what `execute_plan` would have written.
    progress
        Called with a message (count, rate, time left) and the fraction done.

    Returns
    -------
    pl.DataFrame
        ``request`` (index into `requests`), ``task``, ``recipe_key``, ``evaluation_key``, then the columns of
        `SCORE_SCHEMA`; sorted by request.

    Raises
    ------
    LabelFailures
        After everything else is stored, naming each checkpoint or merge that could not be scored.
    EvaluationError
        Before any work: a task that cannot be scored.
    """
    if dtype not in _DTYPES:
        raise EvaluationError(f"Weights cannot be scored in dtype {dtype!r}: use one of {', '.join(_DTYPES)}.")
    from simmerge_core.merging import needs_base

    base = catalog.base.id
    task_keys = {task: task_key(catalog.task(task)) for task in dict.fromkeys(task for _, task in requests)}
    folders, broken = _folders(catalog, [base, *(c for plan, _ in requests for c in plan.checkpoints)], fingerprints)
    broken |= unusable or {}
    if base in broken:
        raise EvaluationError(f"The base {base!r} is needed to score anything: {broken[base]}")
    words = tokenizer_key(Path(folders[base]))

    meta: list[tuple[int, str, str, str]] = []
    plans: dict[str, Plan] = {}
    tasks: dict[str, dict[str, str]] = {}  # recipe key to evaluation key by task
    failures: list[Failure] = []
    recipes: dict[Plan, str | None] = {}
    for index, (plan, task) in enumerate(requests):
        if plan not in recipes:
            fault = next((c for c in plan.checkpoints if c in broken), None)
            if fault is not None:
                failures.append(Failure(str(plan), fault, broken[fault]))
                recipes[plan] = None
            else:
                of_base = fingerprints[base] if needs_base(plan) else None
                recipes[plan] = recipe_key(plan, fingerprints=fingerprints, base_fingerprint=of_base, dtype=dtype)
        recipe = recipes[plan]
        if recipe is None:
            continue
        key = evaluation_key(recipe, task_keys[task], tokenizer_key=words)
        plans.setdefault(recipe, plan)
        tasks.setdefault(recipe, {})[task] = key
        meta.append((index, task, recipe, key))

    missing = set(store.missing(key for _, _, _, key in meta))
    jobs = _jobs(plans, tasks, missing)
    pace = Pace(progress, total=len(plans), done=len(plans) - len(jobs), what="models scored")
    pace.tell()
    if jobs:
        setting = Setting(
            json.dumps([task.model_dump(mode="json") for task in catalog.tasks]),
            folders,
            base,
            dtype,
            device,
            allow_network,
        )
        recipe_of = {job.number: recipe for recipe, job in jobs.items()}
        with store.batch():
            for answer in answers(list(jobs.values()), setting, workers=workers):
                recipe = recipe_of[answer.number]
                for task, rows in answer.scores.items():
                    store.put(tasks[recipe][task], pl.DataFrame(rows, schema=SCORE_SCHEMA, orient="row"))
                if answer.error is not None:
                    failures.append(Failure(str(plans[recipe]), answer.checkpoint, answer.error))
                pace.step()
    frame = _assembled(meta, store)
    if failures:
        raise LabelFailures(sorted(failures, key=lambda f: (f.checkpoint or "", f.plan)), frame)
    return frame


def label_pairs(
    rows: pl.DataFrame,
    actions: Iterable[str | Action],
    catalog: Catalog,
    *,
    store: EvaluationStore,
    fingerprints: Mapping[str, str],
    workers: int = 1,
    dtype: str = "float32",
    device: str = "cpu",
    allow_network: bool = False,
    unusable: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Utility of every action on designed pairs: rows of table ``merge_labels``, with ``task``.

    Each merge is made in one orientation (the smaller id first): o(a, b; α) = o(b, a; 1 − α), so the other costs
    nothing.

    Parameters
    ----------
    rows
        ``a, b, task, kind, split`` as `design` gives them; either orientation.
    actions
        What is applied to each pair.

    Raises
    ------
    LabelFailures, EvaluationError
        As `score_plans`; `LabelFailures.frame` has the rows of all pairs that were labelled.
    """
    chosen = [parse_action(action) for action in actions]
    pairs = rows.select("a", "b", "task", "kind", "split").rows()
    requests, described = [], []
    for a, b, task, kind, split in pairs:
        for action in chosen:
            first, second, applied = (a, b, action) if a < b else (b, a, action.mirrored())
            requests.append((plan_of([first, second], [applied]), task))
            described.append(
                (
                    a,
                    b,
                    kind,
                    str(action),
                    action.operator,
                    action.alpha,
                    split,
                    fingerprints.get(a),
                    fingerprints.get(b),
                )
            )
    names = ("a", "b", "kind", "action", "operator", "alpha", "split", "a_fingerprint", "b_fingerprint")
    schema = {name: pl.Float64 if name == "alpha" else pl.String for name in names}
    about = pl.DataFrame(described, schema=schema, orient="row").with_row_index("request").cast({"request": pl.Int64})

    def scored() -> pl.DataFrame:
        return score_plans(
            requests,
            catalog,
            store=store,
            fingerprints=fingerprints,
            workers=workers,
            dtype=dtype,
            device=device,
            allow_network=allow_network,
            unusable=unusable,
            progress=progress,
        )

    return _with(about, scored, columns=("task", *names, "recipe_key", *SCORE_SCHEMA, "evaluation_key"))


def label_plans(
    plans: Sequence[tuple[Plan, str]],
    catalog: Catalog,
    *,
    store: EvaluationStore,
    fingerprints: Mapping[str, str],
    workers: int = 1,
    dtype: str = "float32",
    device: str = "cpu",
    allow_network: bool = False,
    unusable: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Utility of executed plans: rows of table ``plan_labels``, with ``task``; one per plan, task, metric, item set.

    Raises
    ------
    LabelFailures, EvaluationError
        As `score_plans`.
    """
    about = pl.DataFrame(
        {
            "request": pl.Series(range(len(plans)), dtype=pl.Int64),
            "configuration": pl.Series(["+".join(sorted(p.checkpoints)) for p, _ in plans], dtype=pl.String),
            "k": pl.Series([p.k for p, _ in plans], dtype=pl.Int64),
            "order": pl.Series([list(p.checkpoints) for p, _ in plans], dtype=pl.List(pl.String)),
            "actions": pl.Series([list(map(str, p.actions)) for p, _ in plans], dtype=pl.List(pl.String)),
        }
    )

    def scored() -> pl.DataFrame:
        return score_plans(
            plans,
            catalog,
            store=store,
            fingerprints=fingerprints,
            workers=workers,
            dtype=dtype,
            device=device,
            allow_network=allow_network,
            unusable=unusable,
            progress=progress,
        )

    return _with(
        about,
        scored,
        columns=("task", "configuration", "k", "order", "actions", "recipe_key", *SCORE_SCHEMA, "evaluation_key"),
    )


def score_standalone(
    checkpoints: Sequence[str],
    tasks: Sequence[str],
    catalog: Catalog,
    *,
    store: EvaluationStore,
    fingerprints: Mapping[str, str],
    workers: int = 1,
    dtype: str = "float32",
    device: str = "cpu",
    allow_network: bool = False,
    unusable: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """U(m, t) of unmerged models: rows of table ``standalone_scores``, with ``checkpoint`` and ``task``.

    Parameters
    ----------
    checkpoints
        Ids of the catalog; the base's id is allowed.

    Raises
    ------
    LabelFailures, EvaluationError
        As `score_plans`.
    """
    requests = [(plan_of([checkpoint], []), task) for checkpoint in checkpoints for task in tasks]
    about = pl.DataFrame(
        {
            "request": pl.Series(range(len(requests)), dtype=pl.Int64),
            "checkpoint": pl.Series([p.checkpoints[0] for p, _ in requests], dtype=pl.String),
            "fingerprint": pl.Series([fingerprints.get(p.checkpoints[0]) for p, _ in requests], dtype=pl.String),
        }
    )

    def scored() -> pl.DataFrame:
        return score_plans(
            requests,
            catalog,
            store=store,
            fingerprints=fingerprints,
            workers=workers,
            dtype=dtype,
            device=device,
            allow_network=allow_network,
            unusable=unusable,
            progress=progress,
        )

    return _with(about, scored, columns=("checkpoint", "task", "fingerprint", *SCORE_SCHEMA, "evaluation_key"))


def _with(about: pl.DataFrame, scored: Callable[[], pl.DataFrame], *, columns: Sequence[str]) -> pl.DataFrame:
    """What `scored` gives, with what is known about each request; the frame of a `LabelFailures` too."""

    def joined(scores: pl.DataFrame) -> pl.DataFrame:
        return scores.join(about, on="request", how="left", maintain_order="left").select(columns)

    try:
        return joined(scored())
    except LabelFailures as error:
        raise LabelFailures(error.failures, joined(error.frame)) from error


def _folders(
    catalog: Catalog, wanted: Iterable[str], fingerprints: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Folder by checkpoint id, and what is wrong with those that cannot be used."""
    from simmerge_core.checkpoints import resolve

    folders: dict[str, str] = {}
    broken: dict[str, str] = {}
    for checkpoint in dict.fromkeys(wanted):
        try:
            folders[checkpoint] = str(resolve(catalog.checkpoint(checkpoint)))
            if checkpoint not in fingerprints:
                broken[checkpoint] = "it has no fingerprint: materialize its manifest first."
        except (SimMergeError, OSError) as error:
            broken[checkpoint] = str(error)
    return folders, broken


def _jobs(plans: Mapping[str, Plan], tasks: Mapping[str, Mapping[str, str]], missing: set[str]) -> dict[str, Job]:
    """A job per model with something missing, ordered so that neighbours share checkpoints."""
    wanted = {recipe: tuple(sorted(task for task, key in tasks[recipe].items() if key in missing)) for recipe in plans}
    order = sorted(
        (r for r in plans if wanted[r]), key=lambda r: (plans[r].checkpoints, tuple(map(str, plans[r].actions)))
    )
    return {
        recipe: Job(number, plans[recipe].checkpoints, tuple(map(str, plans[recipe].actions)), wanted[recipe])
        for number, recipe in enumerate(order)
    }


def _assembled(meta: Sequence[tuple[int, str, str, str]], store: EvaluationStore) -> pl.DataFrame:
    about = pl.DataFrame(meta, schema=_META, orient="row")
    scores = store.frame(about["evaluation_key"].unique(maintain_order=True))
    return about.join(scores, on="evaluation_key", how="inner", maintain_order="left_right").select(
        *_META, *SCORE_SCHEMA
    )
