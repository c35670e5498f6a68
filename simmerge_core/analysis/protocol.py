"""The clean protocol: every choice is made from one item set and scored on another.

A choice is a distribution over models: a point for a selector or a fixed action, uniform for the random baseline,
uniform over exact ties for the oracle. All figures are exact expectations under it; nothing is sampled here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simmerge_core.analysis.units import Units
from simmerge_core.errors import SelectionError
from simmerge_core.metrics import MIN_GAP, gap_closed

TIE = 1e-12
"""Utilities closer than this are equal: a mean of 0/1 items computed in another order differs by rounding only."""

TRAINING_SPLITS = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Direction:
    """Choose on the items of one set, score on those of another.

    With a catalog that declares a single item set both are the same, and every figure is optimistic.
    """

    chosen_on: str
    scored_on: str

    @property
    def honest(self) -> bool:
        """Whether the two item sets differ."""
        return self.chosen_on != self.scored_on

    def __str__(self) -> str:
        return f"{self.chosen_on}->{self.scored_on}"


def directions(item_sets: Sequence[str], *, both: bool = False) -> tuple[Direction, ...]:
    """First item set to second, and with `both` the reverse too; a single item set gives the dishonest direction."""
    if len(item_sets) == 1:
        return (Direction(item_sets[0], item_sets[0]),)
    first, second = sorted(item_sets)[:2]
    return (Direction(first, second), Direction(second, first)) if both else (Direction(first, second),)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What each method's choices are worth on the held-out pairs: r rows = test units × directions, p parts, m actions.

    Attributes
    ----------
    units
        Index of each row's unit, (r,).
    utility
        Per method: expected utility per part, (r, p).
    worst_gap
        Per method: expected GapClosed of the worse part, (r,); NaN where the guard of `metrics.gap_closed` leaves out
        a part.
    hit, near
        Per method that chooses an action: probability that the chosen action ties with the best on the scored items, or
        comes within the tolerance of it, (r,).
    regret
        Per method that chooses an action: best utility on the scored items minus the expected utility, (r,).
    scored, chosen_from
        Utility of each action, mean over parts, on the scored items and on those chosen from, (r, m).
    choice
        Per method that chooses an action: its distribution over actions, (r, m).
    expert, auxiliary
        References of each part on the scored items, (r, p).
    """

    actions: tuple[str, ...]
    units: np.ndarray
    tasks: np.ndarray
    utility: Mapping[str, np.ndarray]
    worst_gap: Mapping[str, np.ndarray]
    hit: Mapping[str, np.ndarray]
    near: Mapping[str, np.ndarray]
    regret: Mapping[str, np.ndarray]
    scored: np.ndarray
    chosen_from: np.ndarray
    choice: Mapping[str, np.ndarray]
    expert: np.ndarray
    auxiliary: np.ndarray

    def mean_utility(self, method: str) -> np.ndarray:
        """Utility of a method per row, mean over parts, (r,)."""
        return self.utility[method].mean(axis=1)


def tied_best(utilities: np.ndarray) -> np.ndarray:
    """Uniform distribution over the exactly best columns of each row, (r, m) -> (r, m)."""
    best = utilities >= utilities.max(axis=1, keepdims=True) - TIE
    return best / best.sum(axis=1, keepdims=True)


def one_hot(columns: np.ndarray, width: int) -> np.ndarray:
    """(r,) column numbers -> (r, width)."""
    return np.eye(width)[columns]


def best_fixed(units: Units, item_set: str) -> int:
    """The action with the highest mean utility over the training pairs on one item set (ties: the first)."""
    training = np.isin(units.split, TRAINING_SPLITS)
    if not training.any():
        raise SelectionError(
            "No labelled pair belongs to the training split, so no baseline can be chosen: label more pairs."
        )
    means = units.utilities[item_set][training].mean(axis=(0, 1))  # (m,)
    return int(np.argmax(means >= means.max() - TIE))


def best_fixed_per_task(units: Units, item_set: str) -> np.ndarray:
    """For each unit, the best action over the training pairs with the same task (or pair of tasks), (n,).

    A task without a training pair takes `best_fixed`.
    """
    training = np.isin(units.split, TRAINING_SPLITS)
    chosen = np.full(len(units), best_fixed(units, item_set))
    for tasks in np.unique(units.tasks, axis=0):
        here = (units.tasks == tasks).all(axis=1)
        if (here & training).any():
            means = units.utilities[item_set][here & training].mean(axis=(0, 1))
            chosen[here] = np.argmax(means >= means.max() - TIE)
    return chosen


def evaluate(
    units: Units,
    predictions: Mapping[str, Mapping[Direction, np.ndarray]],
    *,
    along: Sequence[Direction],
    split: str = "test",
    within: float = 0.01,
    min_gap: float = MIN_GAP,
) -> Outcomes:
    """Score every method's choices on the pairs of a split.

    Parameters
    ----------
    predictions
        Per learned method and direction: predicted utility of each action for every unit, (n, m); the highest is
        chosen. They must come from training on `chosen_on` items of training pairs.
    along
        Directions; rows of all are stacked, so that every mean is the average over them.
    within
        Tolerance of `near`, in units of the metric.
    min_gap
        Guard of GapClosed per merge: a part whose expert and auxiliary are closer than this has none.

    Returns
    -------
    Outcomes
        Methods: those of `predictions`, then ``best_fixed``, ``best_fixed_per_task``, ``random``, ``oracle`` (best on
        the items chosen from), ``oracle_same_items`` (best on the scored items, which no honest method can reach),
        every action by its text, ``keep_better_parent``, ``parent_expert``, ``parent_auxiliary`` and ``base``. The two
        references ``parent_expert`` and ``parent_auxiliary`` take, for each task, that task's own expert and the other
        parent; with one task per unit they are models, with two they are the upper and the lower end of GapClosed.

    Raises
    ------
    SelectionError
        If the split holds no unit.
    """
    test = np.flatnonzero(units.split == split)
    if len(test) == 0:
        raise SelectionError(
            f"No labelled pair belongs to the {split} split: label more pairs, or raise test_share in the catalog."
        )
    parts = [_evaluate_one(units, test, {k: v[d] for k, v in predictions.items()}, d, within, min_gap) for d in along]
    return stacked(parts)


def _evaluate_one(
    units: Units,
    test: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    direction: Direction,
    within: float,
    min_gap: float,
) -> Outcomes:
    m = len(units.actions)
    scored = units.utilities[direction.scored_on][test]  # (r, p, m)
    seen = units.utilities[direction.chosen_on][test]
    expert, auxiliary = units.expert[direction.scored_on][test], units.auxiliary[direction.scored_on][test]  # (r, p)
    scored_mean, seen_mean = scored.mean(axis=1), seen.mean(axis=1)  # (r, m)

    fixed = best_fixed(units, direction.chosen_on)
    choice: dict[str, np.ndarray] = {
        name: one_hot(np.argmax(values[test], axis=1), m) for name, values in predicted.items()
    }
    choice["best_fixed"] = one_hot(np.full(len(test), fixed), m)
    choice["best_fixed_per_task"] = one_hot(best_fixed_per_task(units, direction.chosen_on)[test], m)
    choice["random"] = np.full((len(test), m), 1.0 / m)
    choice["oracle"] = tied_best(seen_mean)
    choice["oracle_same_items"] = tied_best(scored_mean)
    for number, action in enumerate(units.actions):
        choice[action] = one_hot(np.full(len(test), number), m)

    best = scored_mean.max(axis=1, keepdims=True)
    gaps = np.asarray(gap_closed(scored, expert[..., None], auxiliary[..., None], min_gap=min_gap)).min(
        axis=1
    )  # (r, m)
    utility = {name: np.einsum("rm,rpm->rp", p, scored) for name, p in choice.items()}
    worst_gap = {name: (p * gaps).sum(axis=1) for name, p in choice.items()}

    references = _references(units, test, direction)
    for name, models in references.items():
        utility[name] = np.sum([weight[:, None] * values for weight, values in models], axis=0)
        worst_gap[name] = np.sum(
            [
                weight * np.asarray(gap_closed(values, expert, auxiliary, min_gap=min_gap)).min(axis=1)
                for weight, values in models
            ],
            axis=0,
        )
    return Outcomes(
        actions=units.actions,
        units=test,
        tasks=units.tasks[test],
        utility=utility,
        worst_gap=worst_gap,
        hit={name: (p * (scored_mean >= best - TIE)).sum(axis=1) for name, p in choice.items()},
        near={name: (p * (scored_mean >= best - within - TIE)).sum(axis=1) for name, p in choice.items()},
        regret={name: best[:, 0] - (p * scored_mean).sum(axis=1) for name, p in choice.items()},
        scored=scored_mean,
        chosen_from=seen_mean,
        choice=choice,
        expert=expert,
        auxiliary=auxiliary,
    )


def _references(units: Units, test: np.ndarray, direction: Direction) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """What needs no merge: models with their probability (r,) and utility per part (r, p)."""
    expert = {s: units.expert[s][test] for s in (direction.chosen_on, direction.scored_on)}
    auxiliary = {s: units.auxiliary[s][test] for s in (direction.chosen_on, direction.scored_on)}

    def parent(s: str, first: bool) -> np.ndarray:
        # Part 0 is a's own task, where a is the expert; part 1, if there is one, is b's, where a is the auxiliary.
        a_is_expert = np.arange(units.tasks.shape[1]) == 0
        return np.where(a_is_expert == first, expert[s], auxiliary[s])

    seen_a, seen_b = (parent(direction.chosen_on, first).mean(axis=1) for first in (True, False))
    weight_a = np.where(np.abs(seen_a - seen_b) <= TIE, 0.5, seen_a > seen_b)
    surely = np.ones(len(test))
    return {
        "keep_better_parent": [
            (weight_a, parent(direction.scored_on, True)),
            (1 - weight_a, parent(direction.scored_on, False)),
        ],
        "parent_expert": [(surely, expert[direction.scored_on])],
        "parent_auxiliary": [(surely, auxiliary[direction.scored_on])],
        "base": [(surely, units.base[direction.scored_on][test])],
    }


def stacked(parts: Sequence[Outcomes]) -> Outcomes:
    """The rows of several outcomes with the same methods, one after the other."""

    def rows(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    def methods(name: str) -> dict[str, np.ndarray]:
        return {key: np.concatenate([getattr(part, name)[key] for part in parts]) for key in getattr(parts[0], name)}

    return Outcomes(
        actions=parts[0].actions,
        units=rows("units"),
        tasks=rows("tasks"),
        utility=methods("utility"),
        worst_gap=methods("worst_gap"),
        hit=methods("hit"),
        near=methods("near"),
        regret=methods("regret"),
        scored=rows("scored"),
        chosen_from=rows("chosen_from"),
        choice=methods("choice"),
        expert=rows("expert"),
        auxiliary=rows("auxiliary"),
    )


def confusion(outcomes: Outcomes, method: str) -> np.ndarray:
    """Confusion matrix (App. F.1): row = best action on the scored items, column = chosen action, (m, m) float64.

    A row whose choice is among the tied best counts on the diagonal; otherwise its unit of mass is shared equally by
    the tied best actions. Entries sum to the number of rows.
    """
    best = outcomes.scored >= outcomes.scored.max(axis=1, keepdims=True) - TIE
    shares = best / best.sum(axis=1, keepdims=True)  # (r, m)
    matrix = np.zeros((len(outcomes.actions), len(outcomes.actions)))
    for right, share, chosen in zip(best, shares, outcomes.choice[method], strict=True):
        matrix += np.diag(chosen * right) + np.outer(share, chosen * ~right)
    return matrix


def macro_class_accuracy(matrix: np.ndarray) -> float:
    """Mean over the classes that occur of the share of their mass on the diagonal."""
    mass = matrix.sum(axis=1)
    present = mass > 0
    return float((np.diag(matrix)[present] / mass[present]).mean())


def winner_agreement(outcomes: Outcomes) -> float:
    """How often the winner on one item set is the winner on the other, a tied winner counting by its share."""
    return float(
        (tied_best(outcomes.chosen_from) * (outcomes.scored >= outcomes.scored.max(axis=1, keepdims=True) - TIE))
        .sum(axis=1)
        .mean()
    )


def tie_share(outcomes: Outcomes) -> float:
    """Share of rows where two or more actions are exactly best on the scored items."""
    best = outcomes.scored >= outcomes.scored.max(axis=1, keepdims=True) - TIE
    return float((best.sum(axis=1) > 1).mean())
