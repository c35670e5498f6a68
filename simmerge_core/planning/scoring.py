"""Predicted utility of plans, step by step, for many plans at once (§2.3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import Action
from simmerge_core.planning.gram import exact_weights
from simmerge_core.planning.pairs import PairTable
from simmerge_core.planning.propagation import mixture_weights, propagate
from simmerge_core.planning.target import Target
from simmerge_core.selector.block import FeatureBlock
from simmerge_core.selector.prediction import UtilityModel

AGGREGATES = ("last", "mean", "sum")
PROPAGATIONS = ("bounds", "gram")
ORIENTATIONS = ("expert_first", "both", "as_ordered")


@dataclass(frozen=True, slots=True)
class Prefixes:
    """n plans of j checkpoints so far.

    Attributes
    ----------
    members
        (n, j) checkpoint indices in merge order.
    weights
        (n, j) share of each checkpoint in the intermediate.
    actions
        (n, j − 1) index of the action of each step.
    utilities
        (n, j − 1) predicted utility after each step.
    """

    members: np.ndarray
    weights: np.ndarray
    actions: np.ndarray
    utilities: np.ndarray

    def __len__(self) -> int:
        return len(self.members)

    def take(self, index: np.ndarray) -> Prefixes:
        """The prefixes at `index` (integers or a mask)."""
        return Prefixes(self.members[index], self.weights[index], self.actions[index], self.utilities[index])


def singles(members: np.ndarray) -> Prefixes:
    """Prefixes of one checkpoint each, (n,) indices."""
    n = len(members)
    return Prefixes(
        members[:, None].astype(np.int64), np.ones((n, 1)), np.zeros((n, 0), dtype=np.int64), np.zeros((n, 0))
    )


class Scorer:
    """Asks a model for the steps of plans on a target.

    Parameters
    ----------
    model
        The selector or a baseline.
    table
        Pairwise features of the pool on the target's tasks.
    target
        Over which tasks, and how combined.
    actions
        The actions to choose among, a subset of the model's.
    orientation
        How a step is shown to the model. ``expert_first``: the side that holds the task's expert is a (as in the
        labels); ``as_ordered``: the side that comes first in the plan; ``both``: the mean over both orientations.
        An action that is read off the turned orientation is mirrored: o(a, b; α) = o(b, a; 1 − α).
    aggregate
        Utility of a plan from its steps: ``last`` (default), ``mean`` or ``sum``.
    propagation
        Weight features of intermediates: ``bounds`` by App. D, ``gram`` exactly for linear merges (`planning.gram`).
    """

    def __init__(
        self,
        model: UtilityModel,
        table: PairTable,
        target: Target,
        *,
        actions: Sequence[Action],
        orientation: str = "expert_first",
        aggregate: str = "last",
        propagation: str = "bounds",
    ) -> None:
        if aggregate not in AGGREGATES:
            raise SelectionError(f"Steps cannot be aggregated by {aggregate!r}: choose one of {AGGREGATES}.")
        if orientation not in ORIENTATIONS:
            raise SelectionError(f"Orientation {orientation!r} does not exist: choose one of {ORIENTATIONS}.")
        if propagation not in PROPAGATIONS:
            raise SelectionError(f"Propagation {propagation!r} does not exist: choose one of {PROPAGATIONS}.")
        unknown = [str(a) for a in actions if a not in model.actions]
        if unknown or not actions:
            raise SelectionError(
                f"The selector does not know the actions {unknown}: choose among {[str(a) for a in model.actions]}, "
                "or train it with them."
            )
        self.model, self.table, self.target = model, table, target
        self.actions = tuple(actions)
        self.alphas = np.array([a.alpha for a in self.actions])
        self.aggregate, self.propagation = aggregate, propagation
        self._columns = np.array([model.actions.index(a) for a in self.actions])
        mirrored = [a.mirrored() for a in self.actions]
        self.closed = all(m in model.actions for m in mirrored)
        self._turned = np.array([model.actions.index(m) for m in mirrored]) if self.closed else None
        # Without the mirrored actions the turned orientation cannot be read; plans are then scored as ordered.
        self.orientation = orientation if self.closed else "as_ordered"
        self._expert = np.array([[d == t for d in table.domains] for t in table.tasks])  # (T, N)

    @property
    def symmetric(self) -> bool:
        """Whether (a, b, …) and (b, a, …) are the same plan to the search."""
        return self.orientation != "as_ordered" and all(a.mirrored() in self.actions for a in self.actions)

    def expert_rank(self) -> np.ndarray:
        """(N,) position of the target task that a checkpoint is the expert of; T for auxiliaries."""
        return np.where(self._expert.any(axis=0), self._expert.argmax(axis=0), len(self.table.tasks))

    def step(self, prefixes: Prefixes, added: np.ndarray) -> np.ndarray:
        """(n, actions) predicted target utility of merging checkpoint `added` (n,) into each prefix."""
        parts = [self._task_step(t, prefixes, added) for t in range(len(self.table.tasks))]
        return self.target.over(np.stack(parts))

    def _task_step(self, t: int, prefixes: Prefixes, added: np.ndarray, *, ensemble: bool = False) -> np.ndarray:
        left = self._expert[t][prefixes.members].any(axis=1)
        right = self._expert[t][added]
        if self.orientation == "as_ordered":
            return self._predict(t, prefixes, added, left, right, turn=False, ensemble=ensemble)
        if self.orientation == "both":
            straight = self._predict(t, prefixes, added, left, right, turn=False, ensemble=ensemble)
            return 0.5 * (straight + self._predict(t, prefixes, added, left, right, turn=True, ensemble=ensemble))
        turn = right & ~left
        if not turn.any():
            return self._predict(t, prefixes, added, left, right, turn=False, ensemble=ensemble)
        parts = [(np.flatnonzero(turn == side), side) for side in (False, True)]
        out: np.ndarray | None = None
        for index, side in parts:
            if not len(index):
                continue
            answer = self._predict(
                t, prefixes.take(index), added[index], left[index], right[index], turn=side, ensemble=ensemble
            )
            if out is None:
                out = np.empty((*answer.shape[:-2], len(added), answer.shape[-1]))
            out[..., index, :] = answer
        assert out is not None
        return out

    def _predict(
        self,
        t: int,
        prefixes: Prefixes,
        added: np.ndarray,
        left: np.ndarray,
        right: np.ndarray,
        *,
        turn: bool,
        ensemble: bool,
    ) -> np.ndarray:
        x = propagate(
            self.table.x[t],
            prefixes.members,
            prefixes.weights,
            added,
            feature_names=self.table.feature_names,
            intermediate_first=not turn,
        )
        if self.propagation == "gram" and prefixes.members.shape[1] > 1:
            exact_weights(
                x,
                self.table.x[t],
                prefixes.members,
                prefixes.weights,
                added,
                feature_names=self.table.feature_names,
                intermediate_first=not turn,
            )
        tasks = np.full(len(x), self.table.tasks[t])
        block = FeatureBlock(x, tasks, right, left) if turn else FeatureBlock(x, tasks, left, right)
        prediction = self.model.predict_block(block)
        columns = self._turned if turn else self._columns
        if not ensemble:
            return prediction.utilities[:, columns]
        members = prediction.members if prediction.members is not None else prediction.utilities[None]
        return members[:, :, columns]

    def extend(self, prefixes: Prefixes, added: np.ndarray, *, joint: bool = False) -> Prefixes:
        """Append a checkpoint (n,) to each prefix, with the operator that the model picks for the step.

        With `joint`, one prefix per distinct alpha is returned, each with the best action of that alpha: App. D's
        features of later steps depend on an action through its alpha alone, so these stand for all sequences.
        """
        utilities = np.round(self.step(prefixes, added), 12)
        groups = (
            [np.flatnonzero(self.alphas == a) for a in np.unique(self.alphas)]
            if joint
            else [np.arange(len(self.alphas))]
        )
        parts = []
        for group in groups:
            action = group[utilities[:, group].argmax(axis=1)]
            best = utilities[np.arange(len(action)), action]
            parts.append(
                Prefixes(
                    np.concatenate([prefixes.members, added[:, None]], axis=1),
                    mixture_weights(prefixes.weights, self.alphas[action]),
                    np.concatenate([prefixes.actions, action[:, None]], axis=1),
                    np.concatenate([prefixes.utilities, best[:, None]], axis=1),
                )
            )
        return parts[0] if len(parts) == 1 else _concatenated(parts)

    def plan_utility(self, prefixes: Prefixes) -> np.ndarray:
        """(n,) utility of each plan from its steps."""
        if self.aggregate == "last":
            return prefixes.utilities[:, -1]
        return prefixes.utilities.mean(axis=1) if self.aggregate == "mean" else prefixes.utilities.sum(axis=1)

    def best_extension(self, prefixes: Prefixes, added: np.ndarray) -> np.ndarray:
        """(n,) utility of each plan that appending a checkpoint (n,) with the best action would make."""
        best = self.step(prefixes, added).max(axis=1)
        if self.aggregate == "last":
            return best
        whole = prefixes.utilities.sum(axis=1) + best
        return whole / prefixes.members.shape[1] if self.aggregate == "mean" else whole

    def ensemble(self, plans: Prefixes) -> np.ndarray:
        """(ensemble members, T, n, k − 1): utility on each target task after each step by each network.

        The actions are those of the plans; a baseline counts as one member.
        """
        each, steps = np.arange(len(plans)), []
        for j in range(1, plans.members.shape[1]):
            weights = _weights_of(plans.actions[:, : j - 1], self.alphas)
            prefix = Prefixes(plans.members[:, :j], weights, plans.actions, plans.utilities)
            parts = [
                self._task_step(t, prefix, plans.members[:, j], ensemble=True)[:, each, plans.actions[:, j - 1]]
                for t in range(len(self.table.tasks))
            ]
            steps.append(np.stack(parts, axis=1))  # (E, T, n)
        return np.stack(steps, axis=-1)

    def uncertainties(self, ensemble: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, k − 1) per step and (n,) of the plan: standard deviation over the `ensemble` of the target utility."""
        steps = self.target.over(np.moveaxis(ensemble, 1, 0))  # (E, n, k - 1)
        whole = {"last": steps[..., -1], "mean": steps.mean(axis=-1), "sum": steps.sum(axis=-1)}[self.aggregate]
        return steps.std(axis=0), whole.std(axis=0)


def _weights_of(actions: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    weights = np.ones((len(actions), 1))
    for column in range(actions.shape[1]):
        weights = mixture_weights(weights, alphas[actions[:, column]])
    return weights


def _concatenated(parts: list[Prefixes]) -> Prefixes:
    return Prefixes(
        np.concatenate([p.members for p in parts]),
        np.concatenate([p.weights for p in parts]),
        np.concatenate([p.actions for p in parts]),
        np.concatenate([p.utilities for p in parts]),
    )
