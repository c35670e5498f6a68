"""The catalog: the declared base, checkpoints, tasks and merge requests, validated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from simmerge_core.errors import OperatorError, SimMergeError
from simmerge_core.ids import validate_id
from simmerge_core.operators.actions import ACTION_SETS, Action, parse_action

_REVERSE = "-reverse"
"""Ending of the folder of a selector that is trained on the second item set."""


def _slug(value: str) -> str:
    try:
        return validate_id("catalog", value)
    except SimMergeError as error:
        raise ValueError(str(error).removeprefix("catalog ").rstrip(".")) from error


Id = Annotated[str, AfterValidator(_slug)]


def _nameable(value: Path) -> Path:
    try:
        named = b"\0" not in os.fsencode(value.expanduser())
    except RuntimeError as error:  # ~ of a user whom nobody knows
        raise ValueError(f"path {str(value)!r} starts in the home of an unknown user: write it out") from error
    except UnicodeEncodeError:
        named = False
    if not named:
        raise ValueError(f"path {str(value)!r} holds a character that no file name can: remove it")
    return value


FilePath = Annotated[Path, AfterValidator(_nameable)]


def _slice(text: str) -> str:
    parts = text.split(":")
    if (
        len(parts) not in (2, 3)
        or not all(p == "" or p.isdigit() for p in parts)
        or (parts[-1:] == ["0"] and len(parts) == 3)
    ):
        raise ValueError(f"item set {text!r} is not a slice of document numbers: write start:stop or start::step")
    return text


def _twice(values: tuple[str, ...]) -> str | None:
    """The first value that occurs again."""
    return next((value for number, value in enumerate(values) if value in values[:number]), None)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CheckpointEntry(_Entry):
    """A checkpoint: a local folder, or a hub repository at a pinned revision."""

    id: Id
    path: FilePath | None = None
    hub: str | None = None
    revision: str | None = None
    domain: Id = "base"

    @model_validator(mode="after")
    def _one_source(self) -> CheckpointEntry:
        if (self.path is None) == (self.hub is None):
            raise ValueError(
                f"checkpoint {self.id!r} needs exactly one of path (a local folder) and hub (a repository)"
            )
        if self.hub is not None and not _is_commit(self.revision):
            raise ValueError(f"checkpoint {self.id!r} needs revision: the 40-digit commit of {self.hub} to pin")
        return self


def _is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)


class ProbeSettings(_Entry):
    """What of the probe outputs is kept (§6 of the design: the cache is bounded by these)."""

    count: int = Field(default=64, ge=1)
    last_positions: int | None = Field(default=None, ge=1, description="keep only the last n positions; all when null")
    every_layer: int = Field(default=1, ge=1, description="keep every n-th layer, the last always")
    precision: Literal["float32", "float16"] = "float32"
    top_logits: int | None = Field(default=None, ge=1, description="keep the k most probable tokens; all when null")


class Benchmark(_Entry):
    """One lm-eval task with the exact metric keys that count."""

    name: str = Field(min_length=1)
    include_path: FilePath | None = None
    metrics: tuple[str, ...] = Field(min_length=1)
    item_sets: dict[str, Annotated[str, AfterValidator(_slice)]] = Field(
        default={"A": "0::2", "B": "1::2"}, min_length=1
    )
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    documents: int | None = Field(default=None, ge=1)
    num_fewshot: int | None = Field(default=None, ge=0)
    batch_size: int = Field(default=64, ge=1)
    unsafe_code: bool = False

    @field_validator("metrics")
    @classmethod
    def _metrics_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        repeated = _twice(value)
        if repeated is not None:
            raise ValueError(f"metric {repeated!r} is named twice: name each once")
        return value


class Task(_Entry):
    """A task: unlabeled probe prompts and the benchmarks whose unweighted mean is its score (§3.3)."""

    id: Id
    probes: FilePath
    probe_settings: ProbeSettings = ProbeSettings()
    benchmarks: tuple[Benchmark, ...] = Field(min_length=1)

    @field_validator("benchmarks")
    @classmethod
    def _benchmarks_once(cls, value: tuple[Benchmark, ...]) -> tuple[Benchmark, ...]:
        # A score is told apart by its benchmark's name.
        repeated = _twice(tuple(benchmark.name for benchmark in value))
        if repeated is not None:
            raise ValueError(f"benchmark {repeated!r} is declared twice: declare each once per task")
        return value

    @property
    def metric(self) -> str:
        """The deciding metric key of the first benchmark."""
        return self.benchmarks[0].metrics[0]


class Discovery(_Entry):
    """A folder whose sub-folders are checkpoints without being declared, as soon as they are whole."""

    folder: FilePath
    domain: Id | None = Field(default=None, description="of those that have no simmerge.yaml of their own")
    quiet_seconds: float = Field(
        default=60.0,
        ge=0,
        allow_inf_nan=False,
        description="nothing has changed for so long before work is spent on it",
    )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A folder that could be a checkpoint and is none (yet).

    Attributes
    ----------
    name
        Its name, which may be no id.
    why
        One sentence.
    """

    name: str
    folder: Path
    why: str


class LabelDesign(_Entry):
    """Which pairs are merged and evaluated offline."""

    expert_auxiliary: float = Field(default=1.0, ge=0, le=1, description="share of cross-domain pairs that is labelled")
    auxiliary_auxiliary: float = Field(
        default=0.1, ge=0, le=1, description="share scored on a third task, of neither's domain"
    )
    test_share: float = Field(default=0.2, gt=0, lt=1)
    validation_share: float = Field(default=0.15, gt=0, lt=1)
    salt: str = "simmerge"
    multiway: dict[int, int] = Field(
        default={3: 4, 4: 1}, description="executed configurations per task, by k, on which plans are compared"
    )
    merges_per_checkpoint: int | None = Field(
        default=64,
        ge=1,
        description="pairs at most that a new checkpoint adds to the labelled ones, each merged under every action; "
        "all that the shares above choose when null",
    )
    retrain_after: float = Field(
        default=0.05,
        ge=0,
        le=1000,
        allow_inf_nan=False,
        description="labels that must be new before the automation trains the selectors again, as a share of those "
        "they were trained on",
    )
    daily_merges: int = Field(
        default=0, ge=0, description="merges a day that active labelling may make and score beyond the design; 0 is off"
    )

    @field_validator("multiway")
    @classmethod
    def _k_range(cls, value: dict[int, int]) -> dict[int, int]:
        if any(k < 3 or k > 4 or n < 0 for k, n in value.items()):
            raise ValueError("multiway counts configurations for k = 3 and k = 4 only")
        return value

    @model_validator(mode="after")
    def _something_to_train_on(self) -> LabelDesign:
        if self.test_share + self.validation_share >= 1.0:
            raise ValueError(
                f"test_share {self.test_share:g} and validation_share {self.validation_share:g} leave no pair for "
                "training: lower one of them"
            )
        return self


class BanditSettings(_Entry):
    """How the bandits of a catalog explore; what is null is tuned on logged labels (§3.5)."""

    exploration: float | None = Field(
        default=None, ge=0, le=1e3, allow_inf_nan=False, description="scale of draws and bounds"
    )
    regularisation: float | None = Field(
        default=None, ge=1e-6, le=1e9, allow_inf_nan=False, description="precision of the prior"
    )
    label_weight: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        allow_inf_nan=False,
        description="what a logged label counts against the reward of a round",
    )
    mixing: float = Field(
        default=0.05, ge=0, le=1, description="share of rounds that choose uniformly, so that others can be judged"
    )
    reward_range: tuple[float, float] = Field(default=(0.0, 1.0), description="least and greatest utility")
    seed: int = Field(default=0, ge=0, lt=2**63)

    @field_validator("reward_range")
    @classmethod
    def _some_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not -1e9 <= value[0] < value[1] <= 1e9:
            raise ValueError(f"reward_range {list(value)} is none: give the least and the greatest utility")
        return value


class MergeRequest(_Entry):
    """Which checkpoints may be merged for which target."""

    id: Id
    task: Id | None = None
    tasks: tuple[Id, ...] = ()
    how: Literal["mean", "min"] = "mean"
    weights: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = Field(
        default=None, description="one per task, for a weighted mean; alike when null"
    )
    k: int = Field(default=2, ge=2, le=8)
    checkpoints: Literal["all"] | tuple[Id, ...] = "all"
    actions: str = "extended"
    top: int = Field(default=20, ge=1)
    policy: Literal["selector", "lints", "linucb"] = Field(
        default="selector", description="who chooses the operators: the trained selector, or a bandit that learns"
    )

    @model_validator(mode="after")
    def _target(self) -> MergeRequest:
        if (self.task is None) == (not self.tasks):
            raise ValueError(f"merge request {self.id!r} needs either task or tasks")
        repeated = _twice(self.tasks)
        if repeated is not None:
            raise ValueError(f"merge request {self.id!r} names the task {repeated!r} twice: name each once")
        if self.weights is not None and (len(self.weights) != len(self.tasks) or not any(self.weights)):
            raise ValueError(
                f"merge request {self.id!r} has the weights {list(self.weights)} for {len(self.tasks)} tasks: "
                "give one per entry of tasks, not all zero"
            )
        if self.weights is not None and self.how == "min":
            raise ValueError(f"merge request {self.id!r} has weights, which count for the mean only: leave them out")
        if self.policy != "selector" and self.how == "min" and len(self.targets) > 1:
            raise ValueError(
                f"merge request {self.id!r} asks policy {self.policy} for the minimum over tasks, and its reward "
                "is linear: take the mean, or the policy selector"
            )
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """The target tasks, one or several."""
        return (self.task,) if self.task is not None else self.tasks


class Catalog(_Entry):
    """The whole catalog file; paths are absolute after `load_catalog`."""

    version: Literal[1]
    base: CheckpointEntry
    checkpoints: tuple[CheckpointEntry, ...] = ()
    discover: tuple[Discovery, ...] = ()
    tasks: tuple[Task, ...] = Field(min_length=1)
    action_sets: dict[str, tuple[str, ...]] = {}
    labels: LabelDesign = LabelDesign()
    bandit: BanditSettings = BanditSettings()
    merge_requests: tuple[MergeRequest, ...] = ()

    _path: Path = PrivateAttr(default=Path("catalog.yaml"))
    _discovered: dict[str, float] = PrivateAttr(default_factory=dict)
    _left_out: tuple[LeftOut, ...] = PrivateAttr(default=())

    @field_validator("action_sets")
    @classmethod
    def _usable(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        from simmerge_core.operators.registry import check_action  # imports every rule, and NumPy with them

        for name, texts in value.items():
            _slug(name)  # a selector's folder is named after its action set
            if name.endswith(_REVERSE):
                raise ValueError(f"action set {name!r} ends with {_REVERSE!r}, which selector folders use: rename it")
            try:
                actions = tuple(map(parse_action, texts))
                for action in actions:
                    check_action(action)
            except OperatorError as error:
                raise ValueError(f"action set {name!r}: {error}".rstrip(".")) from error
            repeated = _twice(tuple(map(str, actions)))
            if len(actions) < 2 or repeated is not None:
                why = "has fewer than two actions" if repeated is None else f"names {repeated} twice"
                raise ValueError(f"action set {name!r} {why}: name at least two, each once")
        return value

    @property
    def path(self) -> Path:
        """The file this catalog was read from."""
        return self._path

    @property
    def discovered(self) -> Mapping[str, float]:
        """Seconds without a change that are waited for, by id of those checkpoints that are not declared but found."""
        return self._discovered

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Folders in `discover` that are no checkpoints (yet), by folder and name."""
        return self._left_out

    @property
    def domains(self) -> dict[str, str]:
        """Domain by checkpoint id, without the base."""
        return {entry.id: entry.domain for entry in self.checkpoints}

    @property
    def checkpoint_ids(self) -> tuple[str, ...]:
        """Ids of the checkpoints, without the base: the declared ones in file order, then those found, sorted."""
        return tuple(entry.id for entry in self.checkpoints)

    @property
    def task_ids(self) -> tuple[str, ...]:
        """Ids of the tasks, in file order."""
        return tuple(task.id for task in self.tasks)

    def checkpoint(self, id: str) -> CheckpointEntry:
        """The entry of a checkpoint or of the base.

        Raises
        ------
        CatalogError
            Naming the id and those that exist, or why its folder is none (yet).
        """
        from simmerge_core.errors import CatalogError

        for entry in (self.base, *self.checkpoints):
            if entry.id == id:
                return entry
        for left in self.left_out:
            if left.name == id:
                raise CatalogError(left.why)
        raise _unknown(self, "checkpoint", id, (self.base.id, *self.checkpoint_ids))

    def task(self, id: str) -> Task:
        """The task of this id; raises CatalogError naming those that exist."""
        for task in self.tasks:
            if task.id == id:
                return task
        raise _unknown(self, "task", id, self.task_ids)

    def domain_problem(self, entry: CheckpointEntry) -> str | None:
        """Why a checkpoint has nothing to be an expert in, in one sentence; None where its domain is a task."""
        if entry.domain in self.task_ids:
            return None
        known = ", ".join(self.task_ids)
        return f"Checkpoint {entry.id!r} has domain {entry.domain!r}, which is no task: known are {known}."

    def merge_request(self, id: str) -> MergeRequest:
        """The merge request of this id; raises CatalogError naming those that exist."""
        for request in self.merge_requests:
            if request.id == id:
                return request
        raise _unknown(self, "merge request", id, tuple(r.id for r in self.merge_requests))

    def actions(self, name: str) -> tuple[Action, ...]:
        """The actions of a named set: the catalog's own, or ``paper`` / ``extended``."""
        if name in self.action_sets:
            return tuple(parse_action(text) for text in self.action_sets[name])
        if name in ACTION_SETS:
            return ACTION_SETS[name]
        raise _unknown(self, "action set", name, tuple(dict.fromkeys((*ACTION_SETS, *self.action_sets))))


def _unknown(catalog: Catalog, kind: str, id: str, known: tuple[str, ...]) -> SimMergeError:
    from simmerge_core.errors import CatalogError

    return CatalogError(f"There is no {kind} {id!r} in {catalog.path}: it declares {', '.join(known) or 'none'}.")
