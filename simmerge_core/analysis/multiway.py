"""Multi-way plans against each other (§4.2, §4.3): chosen without executing, scored from plans that were executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np
import polars as pl

from simmerge_core import metrics
from simmerge_core.analysis.bootstrap import DRAWS, cluster_weights, interval, weighted_mean
from simmerge_core.analysis.pairwise import method_name, task_row
from simmerge_core.analysis.protocol import TRAINING_SPLITS, Direction, tied_best
from simmerge_core.analysis.scores import Standalone, task_scores
from simmerge_core.operators.actions import parse_action
from simmerge_core.plans import Plan, plan_of

PlanKey = tuple[tuple[str, ...], tuple[str, ...]]
"""Order and action texts of a plan in its canonical form."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The plan that a method picks for a configuration, with what it predicts for it."""

    plan: Plan
    predicted: float | None = None
    uncertainty: float | None = None


Chooser = Callable[[str, tuple[str, ...]], Choice]
"""From a target task and the checkpoints to merge (all of them) to a plan."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A task with one expert and its auxiliaries, and the plans over exactly these that were executed.

    Attributes
    ----------
    utilities
        Utility by item set of each executed plan, by canonical key.
    """

    task: str
    expert: str
    auxiliaries: tuple[str, ...]
    utilities: dict[PlanKey, dict[str, float]] = field(default_factory=dict)

    @property
    def members(self) -> tuple[str, ...]:
        """The checkpoints, expert first."""
        return (self.expert, *self.auxiliaries)

    @property
    def k(self) -> int:
        """Number of checkpoints."""
        return len(self.members)


def canonical(plan: Plan) -> PlanKey:
    """The key that a plan shares with the one that gives the same merge with its first two checkpoints swapped."""
    order, actions = list(plan.checkpoints), list(plan.actions)
    if len(order) > 1 and order[0] > order[1]:
        order[0], order[1] = order[1], order[0]
        actions[0] = actions[0].mirrored()
    return tuple(order), tuple(map(str, actions))


def configurations(
    plan_labels: pl.DataFrame, *, domains: Mapping[str, str], counted: pl.DataFrame
) -> list[Configuration]:
    """The executed configurations that have exactly one expert of their task (§3.2), sorted.

    Parameters
    ----------
    plan_labels
        Table `plan_labels` with its partition column.
    """
    texts = plan_labels.with_columns(pl.col("order").list.join("\n"), pl.col("actions").list.join("\n"))
    found: dict[tuple[str, tuple[str, ...]], Configuration] = {}
    for task, order, actions, item_set, utility in task_scores(
        texts, by=["order", "actions"], counted=counted
    ).iter_rows():
        plan = plan_of(order.split("\n"), actions.split("\n"))
        members = tuple(sorted(plan.checkpoints))
        experts = [c for c in members if domains.get(c) == task]
        if len(experts) != 1:
            continue
        rest = tuple(c for c in members if c != experts[0])
        here = found.setdefault((task, members), Configuration(task, experts[0], rest))
        here.utilities.setdefault(canonical(plan), {})[item_set] = utility
    return [found[key] for key in sorted(found, key=lambda k: (len(k[1]), *k))]


def same_operators(plan: Plan) -> list[PlanKey]:
    """Every order of a plan's checkpoints under its sequence of operators: the random-order baseline of §4.3."""
    return [canonical(Plan(tuple(order), plan.actions)) for order in permutations(sorted(plan.checkpoints))]


def expert_last(configuration: Configuration, action: str) -> list[PlanKey]:
    """Every order with the expert last, one operator throughout.

    At equal weights the last checkpoint holds half of the result, so this is the plan that a user would try first. The
    order of the auxiliaries is left open: the baseline is the mean over all of them.
    """
    steps = (parse_action(action),) * (configuration.k - 1)
    return [canonical(Plan((*order, configuration.expert), steps)) for order in permutations(configuration.auxiliaries)]


def any_order(configuration: Configuration, action: str) -> list[PlanKey]:
    """Every order, one operator throughout: a fixed operator under a random order."""
    steps = (parse_action(action),) * (configuration.k - 1)
    return [canonical(Plan(tuple(order), steps)) for order in permutations(configuration.members)]


def plans_needed(
    found: Sequence[Configuration], choosers: Sequence[Chooser], *, best_fixed: Sequence[str], baselines: bool = True
) -> list[tuple[Plan, str]]:
    """Plans, with their task, that `summarise` will ask for and that were not executed yet.

    Parameters
    ----------
    choosers, best_fixed
        Per direction: who picks the plans, and the best fixed action on the pairs.
    baselines
        Also those of the baselines: every order of the chosen operator sequence, and expert last under the best fixed
        operator.
    """
    needed: dict[tuple[str, PlanKey], None] = {}
    for configuration in found:
        for chooser, action in zip(choosers, best_fixed, strict=True):
            plan = chooser(configuration.task, configuration.members).plan
            keys = [canonical(plan)]
            if baselines:
                keys += [*same_operators(plan), *expert_last(configuration, action)]
            for key in keys:
                if key not in configuration.utilities:
                    needed.setdefault((configuration.task, key))
    return [(plan_of(list(order), list(actions)), task) for task, (order, actions) in needed]


def summarise(
    found: Sequence[Configuration],
    choosers: Mapping[Direction, Chooser],
    *,
    best_fixed: Mapping[Direction, str],
    actions: Sequence[str],
    alone: Standalone,
    splits: Mapping[tuple[str, str], str],
    min_gap: float = metrics.MIN_GAP,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures per k.

    Parameters
    ----------
    found
        As `configurations` returns them.
    choosers, best_fixed
        Per direction, as trained and chosen on its `chosen_on` items.
    actions
        The action set; plans with other actions take no part in ``random_plan`` and ``oracle``.
    alone
        Scores of unmerged models, as `scores.standalone` gives them.
    splits
        Split of each labelled pair, both orientations as keys, to count training pairs inside configurations.

    Returns
    -------
    dict
        By k as text. ``simmerge``, ``expert_last_best_fixed``, ``random_order``, ``oracle``, … are mean utilities over
        configurations (and directions); ``gap_closed`` has the same keys, with the auxiliaries' mean score as baseline.
    """
    report: dict[str, Any] = {}
    for k in sorted({configuration.k for configuration in found}):
        of_k = [configuration for configuration in found if configuration.k == k]
        rows = [
            row
            for direction, chooser in choosers.items()
            for configuration in of_k
            if (row := _row(configuration, chooser, direction, best_fixed[direction], actions, alone)) is not None
        ]
        report[str(k)] = _figures(of_k, rows, list(choosers), splits, min_gap, draws, seed)
    return report


@dataclass(frozen=True, slots=True)
class _Row:
    configuration: Configuration
    utility: dict[str, float]
    expert: float
    auxiliary: float
    rank_share: float
    plan: Plan
    predicted: float | None


def _row(
    configuration: Configuration,
    chooser: Chooser,
    direction: Direction,
    best_fixed: str,
    actions: Sequence[str],
    alone: Standalone,
) -> _Row | None:
    """Every method's utility on one configuration, or None where a plan that is asked for was not executed."""
    table = configuration.utilities
    seen, scored = direction.chosen_on, direction.scored_on

    def mean(keys: Sequence[PlanKey]) -> float | None:
        values = [table.get(key, {}).get(scored) for key in keys]
        return None if not values or None in values else float(np.mean([v for v in values if v is not None]))

    choice = chooser(configuration.task, configuration.members)
    allowed = {str(parse_action(a)) for a in actions}
    allowed |= {str(parse_action(a).mirrored()) for a in actions}
    pool = sorted(key for key, v in table.items() if set(key[1]) <= allowed and seen in v and scored in v)
    parents = [alone.get((c, configuration.task, scored)) for c in configuration.members]
    utility = {
        "simmerge": mean([canonical(choice.plan)]),
        "expert_last_best_fixed": mean(expert_last(configuration, best_fixed)),
        "random_order": mean(same_operators(choice.plan)),
    }
    if None in utility.values() or None in parents or not pool:
        return None
    on_seen = np.array([[table[key][seen] for key in pool]])  # (1, plans)
    on_scored = np.array([table[key][scored] for key in pool])
    utility["oracle"] = float(tied_best(on_seen)[0] @ on_scored)
    utility["random_plan"] = float(on_scored.mean())
    for action in actions:
        utility[f"random_order_{method_name(action)}"] = mean(any_order(configuration, action))
        utility[f"expert_last_{method_name(action)}"] = mean(expert_last(configuration, action))
    known = [float(p) for p in parents if p is not None]
    utility |= {"parent_expert": known[0], "parent_auxiliary": metrics.auxiliary_score(known[1:])}
    value = utility["simmerge"]
    assert value is not None
    return _Row(
        configuration,
        {name: u for name, u in utility.items() if u is not None},
        known[0],
        metrics.auxiliary_score(known[1:]),
        float((on_scored < value).mean() + 0.5 * (on_scored == value).mean()),
        choice.plan,
        choice.predicted,
    )


def _figures(
    of_k: Sequence[Configuration],
    rows: Sequence[_Row],
    along: Sequence[Direction],
    splits: Mapping[tuple[str, str], str],
    min_gap: float,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    inside = [[splits.get((c.expert, other), "unlabelled") for other in c.auxiliaries] for c in of_k]
    flat = [split for row in inside for split in row]
    figures: dict[str, Any] = {
        "configurations": len(of_k),
        "rows": len(rows),
        "without_needed_plans": len(of_k) * len(along) - len(rows),
        "executed_plans": sum(len(c.utilities) for c in of_k),
        "directions": [{"chosen_on": d.chosen_on, "scored_on": d.scored_on, "honest": d.honest} for d in along],
        # §3.2 wants no expert-auxiliary pair of the training set inside a configuration; this says how far that holds.
        "expert_auxiliary_pairs_inside": {s: flat.count(s) for s in sorted(set(flat))},
        "configurations_without_training_pairs": sum(not set(row) & set(TRAINING_SPLITS) for row in inside),
    }
    if not rows:
        return figures
    names = [name for name in rows[0].utility if all(name in row.utility for row in rows)]
    utility = {name: np.array([row.utility[name] for row in rows]) for name in names}
    tasks = np.array([row.configuration.task for row in rows])
    expert, auxiliary = np.array([row.expert for row in rows]), np.array([row.auxiliary for row in rows])
    weights = cluster_weights(np.array([[row.configuration.expert] for row in rows]), draws=draws, seed=seed)
    figures |= {name: float(values.mean()) for name, values in utility.items()}
    per_task: dict[str, Any] = {}
    for task in sorted(set(tasks.tolist())):
        here = tasks == task
        e, a = float(expert[here].mean()), float(auxiliary[here].mean())
        per_task[task] = {
            "rows": int(here.sum()),
            "expert": e,
            "auxiliary": a,
            "methods": {name: task_row(float(values[here].mean()), e, a, min_gap) for name, values in utility.items()},
        }
    closed = {name: [t["methods"][name]["gap_closed"] for t in per_task.values()] for name in names}
    figures["gap_closed"] = {
        name: float(np.mean([v for v in values if v is not None])) if any(v is not None for v in values) else None
        for name, values in closed.items()
    }
    figures["gain_over_expert_last_best_fixed"] = {
        name: interval(weighted_mean(utility[name] - utility["expert_last_best_fixed"]), weights).as_dict()
        for name in ("simmerge", "random_order", "oracle")
    }
    figures["gain_over_random_order"] = interval(
        weighted_mean(utility["simmerge"] - utility["random_order"]), weights
    ).as_dict()
    figures["mean_rank_share"] = float(np.mean([row.rank_share for row in rows]))
    predicted = [(row.predicted, row.utility["simmerge"]) for row in rows if row.predicted is not None]
    figures["mean_predicted"] = float(np.mean([p for p, _ in predicted])) if predicted else None
    figures["per_task"] = per_task
    return figures
