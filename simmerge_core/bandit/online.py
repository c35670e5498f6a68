"""A neural-linear bandit on a data root: its encoder, its durable rounds, and the merge requests that it serves (§2.4).

<data root>/bandit/<name>/encoder/        the frozen feature map
<data root>/bandit/<name>/tuning.json     what exploration was tuned to, and the regret of everything tried
<data root>/bandit/<name>/requests/       the order of each request's plan, fixed before its first draw
<data root>/bandit/<name>/warm, log, snapshots   `simmerge_core.bandit.durable`
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.bandit.context import Context
from simmerge_core.bandit.durable import DurableBandit
from simmerge_core.bandit.encoder import Encoder
from simmerge_core.bandit.model import BanditModel
from simmerge_core.bandit.replaying import Round
from simmerge_core.bandit.steps import choose_plan
from simmerge_core.bandit.warming import WarmStart
from simmerge_core.errors import BanditError
from simmerge_core.files import write_json, write_json_once
from simmerge_core.ids import validate_id
from simmerge_core.operators.actions import parse_action
from simmerge_core.planning import pair_table
from simmerge_core.planning.target import Target
from simmerge_core.plans import Plan
from simmerge_core.tables import DataRoot

_ENCODER, _TUNING, _REQUESTS, _WARM = "encoder", "tuning.json", "requests", "warm"


def bandit_name(actions: str, policy: str) -> str:
    """Name of the bandit that serves an action set under a policy: they share every round, and no other's."""
    return f"{actions}-{policy}"


def bandit_folder(root: DataRoot, name: str) -> Path:
    """Where a bandit lies; raises CatalogError for a name that could leave the data root."""
    return root.root / "bandit" / validate_id("bandit", name)


def bandit_names(root: DataRoot) -> list[str]:
    """Bandits that were started, sorted."""
    return sorted(path.parent.name for path in (root.root / "bandit").glob(f"[!.]*/{_WARM}"))


@dataclass(frozen=True)
class OnlineBandit:
    """A started bandit.

    Attributes
    ----------
    durable
        Its rounds and state, shared with every process that opens the folder.
    """

    folder: Path
    encoder: Encoder
    durable: DurableBandit

    @classmethod
    def start(cls, folder: Path, warm: WarmStart) -> OnlineBandit:
        """Put a warm start on disk; one that was killed on the way is started again.

        Raises
        ------
        BanditError
            If a bandit with another beginning lies there.
        """
        folder = Path(folder)
        if not (folder / _WARM).is_dir():
            warm.encoder.save(folder / _ENCODER)
            write_json(folder / _TUNING, warm.tuning.as_json() if warm.tuning is not None else {})
        DurableBandit.create(folder, warm.bandit)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> OnlineBandit:
        """Open a started bandit.

        Raises
        ------
        BanditError
            If there is none, it is damaged, or it was started on features of another version.
        """
        folder = Path(folder)
        if not (folder / _WARM).is_dir():
            raise BanditError(
                f"There is no bandit in {folder}: materialize the asset bandit, which starts one for each policy and "
                "action set that a merge request names."
            )
        encoder, durable = Encoder.load(folder / _ENCODER), DurableBandit.open(folder)
        if durable.source != encoder.key:
            raise BanditError(f"The encoder in {folder} is not the one that the bandit was started with: restore it.")
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
        path = self.folder / _TUNING
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
        expected, lost = [], []
        for z, tasks, weights, arm, arms in rounds.select("z", "tasks", "task_weights", "arm", "arms").iter_rows():
            mean, _ = state.predict(Context(np.array(z), self.encoder.key, tuple(zip(tasks, weights, strict=True))))
            expected.append(float(mean[state.number(arm)]))
            lost.append(float(max(mean[state.number(a)] for a in arms)) - expected[-1])
        return rounds.with_columns(
            expected=pl.Series(expected, dtype=pl.Float64), estimated_regret=pl.Series(lost, dtype=pl.Float64)
        )

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
                self.durable.add_arm(action)
                told.append(f"arm {action} joined")
        for action in state.active:
            if action not in wanted:
                self.durable.retire_arm(action)
                told.append(f"arm {action} retired")
        for task in tasks:
            if task not in self.encoder.tasks and task not in state.tasks:
                self.durable.add_task(task)
                told.append(f"task {task} joined")
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
        begun = json.loads(path.read_text(encoding="utf-8"))
        if begun["asked"] != json.loads(json.dumps(asked)):
            raise BanditError(
                f"Merge request {request!r} has been begun as another one by bandit {self.name}, and its rounds count: "
                "give what is asked now an id of its own."
            )
        return tuple(begun["order"])

    def begun(self, request: str) -> bool:
        """Whether a request's order is fixed."""
        return self._request(request).is_file()

    def _request(self, request: str) -> Path:
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
            return self.durable.choose(round_of(request, step), context, request=request, step=step).arm

        return choose_plan(choose, self.encoder, table, target, order)

    def learn(self, request: str, rewards: Sequence[tuple[float, str]]) -> list[Round]:
        """Learn the reward of each step of a request's plan, with the key of the evaluation that it is from."""
        return [
            self.durable.learn(round_of(request, step), reward, evaluation_key=key)
            for step, (reward, key) in enumerate(rewards, start=1)
        ]


def round_of(request: str, step: int) -> str:
    """Id of the round of a plan's step, from 1."""
    return f"{request}/{step}"
