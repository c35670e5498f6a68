"""A neural-linear bandit on a data root: its encoder, its durable rounds, and the merge requests that it serves (§2.4).

<data root>/bandit/<name>/encoder/        the frozen feature map
<data root>/bandit/<name>/tuning.json     what exploration was tuned to, and the regret of everything tried
<data root>/bandit/<name>/requests/       the order of each request's plan, fixed before its first draw
<data root>/bandit/<name>/warm, log, snapshots   `simmerge_core.bandit.durable`
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.bandit.context import Context
from simmerge_core.bandit.durable import DurableBandit
from simmerge_core.bandit.encoder import CONFIG_FILE, Encoder
from simmerge_core.bandit.log import sync_folder
from simmerge_core.bandit.model import BanditModel
from simmerge_core.bandit.policies import LinearBandit
from simmerge_core.bandit.replaying import Round
from simmerge_core.bandit.saving import SETTINGS_FILE
from simmerge_core.bandit.steps import choose_plan, is_turned
from simmerge_core.bandit.warming import WarmStart
from simmerge_core.errors import BanditError
from simmerge_core.files import replaced_folder, write_json, write_json_once
from simmerge_core.ids import validate_id
from simmerge_core.operators.actions import parse_action
from simmerge_core.planning import pair_table
from simmerge_core.planning.target import Target
from simmerge_core.plans import Plan
from simmerge_core.storage import Location, ObjectPath, is_complete, located, moved_folder, removed
from simmerge_core.tables import DataRoot

_ENCODERS, _TUNING, _REQUESTS, _WARM = "encoders", "tuning.json", "requests", "warm"
_ASIDE = ".before-"


def bandit_name(actions: str, policy: str) -> str:
    """Name of the bandit that serves an action set under a policy: they share every round, and no other's."""
    return f"{actions}-{policy}"


def bandit_folder(root: DataRoot, name: str) -> Location:
    """Where a bandit lies; raises CatalogError for a name that could leave the data root."""
    return root.root / "bandit" / validate_id("bandit", name)


def bandit_names(root: DataRoot) -> list[str]:
    """Bandits that were started, sorted, sound or not; without those that were put aside."""
    found = {path.parent.name for part in (_WARM, "log") for path in (root.root / "bandit").glob(f"[!.]*/{part}")}
    return sorted(name for name in found if _ASIDE not in name)


def is_started(folder: Location) -> bool:
    """Whether there is a bandit in a folder, sound or not."""
    return is_complete(folder / _WARM, SETTINGS_FILE)


def put_aside(root: DataRoot, name: str) -> Location:
    """Rename a bandit's folder, log and all, and give its new place; raises BanditError if there is none."""
    folder = bandit_folder(root, name)
    if not folder.is_dir():
        known = ", ".join(bandit_names(root)) or "none"
        raise BanditError(f"There is no bandit {name!r} under {root.root}: known are {known}.")
    number = 1
    while (aside := folder.with_name(f"{name}{_ASIDE}{number}")).exists():
        number += 1
    if isinstance(folder, ObjectPath):
        moved_folder(folder, folder.with_name(aside.name), first=f"{_WARM}/{SETTINGS_FILE}")
    else:
        folder.rename(folder.with_name(aside.name))
    return aside


def drop(folder: Location) -> None:
    """Delete a bandit's folder, log and all; whoever is about to choose finds no log to write to, and tries again."""
    if isinstance(folder, ObjectPath):
        removed(folder, first=f"{_WARM}/{SETTINGS_FILE}")
        return
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.old")
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


@dataclass(frozen=True)
class OnlineBandit:
    """A started bandit.

    Attributes
    ----------
    durable
        Its rounds and state, shared with every process that opens the folder.
    """

    folder: Location
    encoder: Encoder
    durable: DurableBandit

    @classmethod
    def start(cls, folder: Location, warm: WarmStart) -> OnlineBandit:
        """Put a warm start on disk, and give the bandit that is there then.

        Of several starts at once one counts: encoders lie under their own keys, and which is the bandit's is in the
        warm state, which appears whole and once. A start that was killed on the way is made again.
        """
        folder = located(folder)
        if not is_started(folder):
            _keep(warm, _encoder_folder(folder, warm.encoder.key))
            try:
                DurableBandit.create(folder, warm.bandit)
            except BanditError:
                if not is_started(folder):  # else another start was first
                    raise
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Location) -> OnlineBandit:
        """Open a started bandit.

        Raises
        ------
        BanditError
            If there is none, it is damaged, or it was started on features of another version.
        """
        folder = located(folder)
        if not is_started(folder):
            raise BanditError(
                f"There is no bandit in {folder}: materialize the asset bandit, which starts one for each policy and "
                "action set that a merge request names."
            )
        durable = DurableBandit.open(folder)
        place = _encoder_folder(folder, durable.source)
        encoder = Encoder.load(place)
        if durable.source != encoder.key:
            raise BanditError(f"The encoder in {place} is not the one that the bandit was started with: restore it.")
        return cls(folder, encoder, durable)

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.name

    @property
    def model(self) -> BanditModel:
        """What it expects now, for plan search."""
        return BanditModel(self.encoder, self.durable.state)

    @property
    def tuning(self) -> dict[str, Any]:
        """What `tuning.json` says; empty where everything was given."""
        path = _encoder_folder(self.folder, self.encoder.key) / _TUNING
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def summary(self) -> dict[str, Any]:
        """What there is to know at a glance, JSON-ready."""
        state, rounds = self.durable.state, self.durable.rounds()
        learned = rounds.drop_nulls("reward")
        return {
            "policy": state.kind,
            "arms": list(state.active),
            "retired": sorted(state.retired),
            "tasks": [*self.encoder.tasks, *state.tasks],
            "dimension": state.posterior.dimension,
            "exploration": state.exploration,
            "regularisation": state.regularisation,
            "mixing": state.mixing,
            "seed": state.seed,
            "rounds": rounds.height,
            "pending": rounds.height - learned.height,
            "mean_reward": learned["reward"].mean() if learned.height else None,
            "state_key": state.key,
            "encoder_key": self.encoder.key,
        }

    def learned(self) -> pl.DataFrame:
        """Rounds with a reward, in order, and what the posterior now says that each choice has cost.

        Returns
        -------
        Columns of `DurableBandit.rounds`, and ``expected``: posterior mean of the arm; ``estimated_regret``: the best
        posterior mean of an arm that was there then, minus it. What other arms would have brought is not known.
        """
        state, rounds = self.durable.state, self.durable.rounds().drop_nulls("reward")
        if rounds.is_empty():
            none = pl.lit(None, pl.Float64)
            return rounds.with_columns(expected=none, estimated_regret=none)
        # einsum's order of summation does not depend on the number of threads. Levels are shared, so they cancel.
        mean = np.einsum("nd,kd->nk", np.array(rounds["z"].to_list()), state.posterior.mean)
        chosen = np.array([state.arms.index(arm) for arm in rounds["arm"]])
        there = np.array([len(arms) for arms in rounds["arms"]])[:, None] > np.arange(len(state.arms))  # arms only join
        expected = mean[np.arange(len(chosen)), chosen]
        lost = np.where(there, mean, -np.inf).max(axis=1) - expected
        return rounds.with_columns(expected=pl.Series(expected), estimated_regret=pl.Series(lost))

    def follow_catalog(self, actions: Sequence[str], tasks: Collection[str]) -> list[str]:
        """Let operators and tasks join that the catalog now has, and retire operators that it no longer has.

        Returns
        -------
        What changed, in words.
        """
        state, told = self.durable.state, []
        wanted = [str(parse_action(action)) for action in actions]
        for action in wanted:
            if action not in state.active:
                self._moved(self.durable.add_arm, action, among=lambda now: now.active)
                told.append(f"arm {action} joined")
        for action in state.active:
            if action not in wanted:
                self._moved(self.durable.retire_arm, action, among=lambda now: now.retired)
                told.append(f"arm {action} retired")
        for task in tasks:
            if task not in self.encoder.tasks and task not in state.tasks:
                self._moved(self.durable.add_task, task, among=lambda now: now.tasks)
                told.append(f"task {task} joined")
        return told

    def _moved(
        self, move: Callable[[str], None], name: str, *, among: Callable[[LinearBandit], Collection[str]]
    ) -> None:
        """Make a change, after which `name` is among others, unless another process was first with the same catalog."""
        try:
            move(name)
        except BanditError:
            if name not in among(self.durable.state):
                raise

    def differs_from(self, settings: Mapping[str, Any]) -> list[str]:
        """Settings of the catalog (`bandit`) that this bandit was not started with, in words; null ones are any."""
        state, told = self.durable.state, []
        for name in ("exploration", "regularisation", "mixing", "reward_range", "seed"):
            asked, has = settings.get(name), getattr(state, name)
            if asked is not None and asked != has:
                told.append(f"bandit.{name} is {asked} in the catalog, and {self.name} was started with {has}")
        return told

    def begin(self, request: str, asked: Mapping[str, Any], order: Sequence[str]) -> tuple[str, ...]:
        """The order of a request's plan: the one given, or the one that it was begun with.

        It is on disk before anything is drawn, so that a request that was killed between two steps goes on with the
        same contexts, whatever has been learned since.

        Parameters
        ----------
        asked
            What was asked for, JSON-ready; the same request with something else in it is refused.

        Raises
        ------
        BanditError
            If the request was begun as another one.
        """
        path = self._request(request)
        write_json_once(path, {"asked": asked, "order": list(order)})
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
            same, order = begun["asked"] == json.loads(json.dumps(asked)), tuple(map(str, begun["order"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BanditError(
                f"File {path} is damaged ({type(error).__name__}): restore it from a copy, or give the merge request "
                "another id."
            ) from error
        if not same:
            raise BanditError(
                f"Merge request {request!r} has been begun as another one by bandit {self.name}, and its rounds count: "
                "give what is asked now an id of its own."
            )
        return order

    def _request(self, request: str) -> Location:
        return self.folder / _REQUESTS / f"{validate_id('merge request', request)}.json"

    def choose_plan(self, request: str, features: pl.DataFrame, target: Target, order: Sequence[str]) -> Plan:
        """A round for each step of a plan along an order; made before, it is the same plan again.

        Parameters
        ----------
        features
            Table `pairwise_features` with its `task` column: all ordered pairs of `order` on the target's tasks.
        """
        table = pair_table(features, checkpoints=order, tasks=target.tasks, feature_names=self.encoder.feature_names)

        def choose(context: Context, step: int) -> str:
            # What was drawn stands, even if features computed again differ in their last digits.
            known = self.durable.round(round_of(request, step))
            if known is None:
                known = self.durable.choose(round_of(request, step), context, request=request, step=step)
            return known.arm

        return choose_plan(choose, self.encoder, table, target, order)

    def drawn_plan(self, request: str, domains: Mapping[str, str], target: Target, order: Sequence[str]) -> Plan | None:
        """The plan that was drawn for a request along an order, from the log alone; None if a step was not drawn."""
        actions = []
        for step in range(1, len(order)):
            known = self.durable.round(round_of(request, step))
            if known is None:
                return None
            arm = parse_action(known.arm)
            actions.append(arm.mirrored() if is_turned(domains, target, order[: step + 1]) else arm)
        return Plan(tuple(order), tuple(actions))

    def learn(self, request: str, rewards: Sequence[tuple[float, str]]) -> list[Round]:
        """Learn the reward of each step of a request's plan, with the key of the evaluation that it is from.

        A step that has learned keeps its reward, whatever is said now: a round counts once.

        Raises
        ------
        BanditError
            If a step was never drawn or a reward is out of range, and then nothing of the plan has been learned.
        """
        state, found = self.durable.state, []
        for step, (reward, _) in enumerate(rewards, start=1):
            known = self.durable.round(round_of(request, step))
            if known is None:
                raise BanditError(
                    f"Step {step} of merge request {request!r} was never drawn by bandit {self.name}: materialize "
                    "merge_plans of this request first."
                )
            if known.learned_sequence is None:
                state.checked_reward(known.arm, reward)
            found.append(known)
        return [
            known
            if known.learned_sequence is not None
            else self.durable.learn(known.round_id, reward, evaluation_key=key)
            for known, (reward, key) in zip(found, rewards, strict=True)
        ]


def _keep(warm: WarmStart, place: Location) -> None:
    """Write encoder and tuning; a folder that is there stays, since another process may be reading it."""
    if isinstance(place, ObjectPath):
        with replaced_folder(place, last=CONFIG_FILE, once=True) as built:
            _write(warm, built)
        return
    if place.is_dir():
        return
    temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        _write(warm, temporary)
        temporary.rename(place)  # never takes the place of a folder that holds something
        sync_folder(place.parent)
    except OSError:
        if not place.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(warm: WarmStart, folder: Path) -> None:
    warm.encoder.save(folder)
    write_json(folder / _TUNING, warm.tuning.as_json() if warm.tuning is not None else {})


def _encoder_folder(folder: Location, key: str) -> Location:
    return folder / _ENCODERS / key[:32]


def round_of(request: str, step: int) -> str:
    """Id of the round of a plan's step, from 1."""
    return f"{request}/{step}"
