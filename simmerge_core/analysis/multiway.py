"""Multi-way plans against each other (§4.2, §4.3): chosen without executing, scored from plans that were executed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations, product
from typing import Any

import numpy as np
import polars as pl

from simmerge_core import metrics
from simmerge_core.analysis.bootstrap import DRAWS, cluster_weights, interval, weighted_mean
from simmerge_core.analysis.gaps import Gaps
from simmerge_core.analysis.pairwise import method_name, task_row
from simmerge_core.analysis.protocol import TRAINING_SPLITS, Direction, tied_best
from simmerge_core.analysis.scores import Standalone, task_scores
from simmerge_core.operators.actions import parse_action
from simmerge_core.plans import Plan, plan_of

PlanKey = tuple[tuple[str, ...], tuple[str, ...]]
"""Order and action texts of a plan in its canonical form."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The plan that a method picks for a configuration, with what it predicts for it and the interval around that."""

    plan: Plan
    predicted: float | None = None
    uncertainty: float | None = None
    low: float | None = None
    high: float | None = None


Chooser = Callable[[str | tuple[str, ...], tuple[str, ...]], Choice]
"""From a target task, or several whose mean counts, and the checkpoints to merge (all of them) to a plan."""

ALL_PARENTS_K = 3
"""Number of checkpoints of the configurations whose plans are also executed on all their parents' tasks."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A task with one expert and its auxiliaries, and the plans over exactly these that were executed.

    Attributes
    ----------
    utilities
        Utility by item set of each executed plan, by canonical key.
    targets
        Each task that the utilities are the mean over, with its expert; empty where they are those on `task` alone.
    """

    task: str
    expert: str
    auxiliaries: tuple[str, ...]
    utilities: dict[PlanKey, dict[str, float]] = field(default_factory=dict)
    targets: tuple[tuple[str, str], ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Each task that counts, with its expert."""
        return self.targets or ((self.task, self.expert),)

    @property
    def target(self) -> str | tuple[str, ...]:
        """What a `Chooser` is asked for."""
        return tuple(task for task, _ in self.targets) if self.targets else self.task

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


def of_own_design(found: Sequence[Configuration], actions: Sequence[str]) -> list[Configuration]:
    """Those in the design of their task, without those of other tasks' designs of which some plans are scored on it.

    The design executes every order and sequence of the paper's three actions, 27 merges of three checkpoints. What is
    scored on the other parents' tasks is less than half of that: per direction at most three orders of one sequence and
    "expert last" for three experts. Longer plans are scored on the task of their design only.
    """
    steps = [parse_action(action) for action in actions]

    def owned(configuration: Configuration) -> bool:
        if configuration.k != ALL_PARENTS_K:
            return True
        every = {
            canonical(Plan(order, sequence))
            for order in permutations(configuration.members)
            for sequence in product(steps, repeat=configuration.k - 1)
        }
        return 2 * len(every & configuration.utilities.keys()) > len(every)

    return [configuration for configuration in found if owned(configuration)]


def over_parents(
    found: Sequence[Configuration],
    designed: Sequence[Configuration],
    *,
    domains: Mapping[str, str],
    tasks: Collection[str],
) -> list[Configuration]:
    """Designed configurations of three with utilities that are means over the tasks of all their checkpoints.

    Parameters
    ----------
    found
        As `configurations` returns them: the scores, on every task.
    designed
        Which configurations to return, each once per task in whose design it is; their utilities are not read.
    tasks
        Tasks of the catalog; checkpoints of other domains add no target.

    Returns
    -------
    list of Configuration
        Only plans that were scored on every target task, on the item sets that all of them have.
    """
    scored = _scored_on(found)
    result = []
    for configuration in designed:
        if configuration.k != ALL_PARENTS_K:
            continue
        targets = tuple(sorted((domains[c], c) for c in configuration.members if domains.get(c) in tasks))
        tables = [scored.get((task, frozenset(configuration.members)), {}) for task, _ in targets]
        utilities: dict[PlanKey, dict[str, float]] = {}
        for key in sorted(set.intersection(*(set(table) for table in tables))):
            item_sets = sorted(set.intersection(*(set(table[key]) for table in tables)))
            if item_sets:
                utilities[key] = {s: float(np.mean([table[key][s] for table in tables])) for s in item_sets}
        result.append(
            Configuration(configuration.task, configuration.expert, configuration.auxiliaries, utilities, targets)
        )
    return result


def parents_plans_needed(
    found: Sequence[Configuration],
    joint: Sequence[Configuration],
    choosers: Sequence[Chooser],
    *,
    best_fixed: Sequence[str],
    tasks: Collection[str] | None = None,
    baselines: bool = True,
) -> list[tuple[Plan, str]]:
    """What `plans_needed` says of configurations from `over_parents`, on each of their target tasks by itself.

    A plan that was scored on one of the tasks is asked for on the others only.

    Parameters
    ----------
    found
        As `configurations` returns them.
    tasks
        Only plans to score on these tasks; all by default.
    """
    scored = _scored_on(found)
    needed: dict[tuple[Plan, str], None] = {}
    for task in sorted({t for configuration in joint for t, _ in configuration.targets}):
        if tasks is not None and task not in tasks:
            continue
        here = [
            replace(c, utilities=scored.get((task, frozenset(c.members)), {}))
            for c in joint
            if task in (t for t, _ in c.targets)
        ]
        for plan, _ in plans_needed(here, choosers, best_fixed=best_fixed, baselines=baselines):
            needed.setdefault((plan, task))
    return list(needed)


def _scored_on(found: Sequence[Configuration]) -> dict[tuple[str, frozenset[str]], dict[PlanKey, dict[str, float]]]:
    return {(c.task, frozenset(c.members)): c.utilities for c in found}


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
            plan = chooser(configuration.target, configuration.members).plan
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
    base: str | None = None,
    splits: Mapping[tuple[str, str], str],
    min_gap: float = metrics.MIN_GAP,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures per k.

    Parameters
    ----------
    found
        As `configurations` or `over_parents` returns them.
    choosers, best_fixed
        Per direction, as trained and chosen on its `chosen_on` items.
    actions
        The action set; plans with other actions take no part in ``random_plan`` and ``oracle``.
    alone
        Scores of unmerged models, as `scores.standalone` gives them.
    base
        Id of the base in `alone`; without it there is no such baseline.
    splits
        Split of each labelled pair, both orientations as keys, to count training pairs inside configurations.

    Returns
    -------
    dict
        By k as text. ``simmerge``, ``expert_last_best_fixed``, ``random_order``, ``oracle``, … are mean utilities over
        configurations (and directions); ``gap_closed`` has the same keys, with the auxiliaries' mean score as baseline.
        Where utilities are means over several tasks, expert and auxiliaries are means over them, too: of each task's
        own expert, and of the others on it. The pool of executed plans is then what the methods picked, so that
        ``random_plan`` and ``mean_rank_share``, which want all plans, are left out.
    """
    rows = outcomes(found, choosers, best_fixed=best_fixed, actions=actions, alone=alone, base=base)
    return figures_of(
        found,
        rows,
        along=list(choosers),
        actions=actions,
        splits=splits,
        min_gap=min_gap,
        draws=draws,
        seed=seed,
    )


def figures_of(
    found: Sequence[Configuration],
    rows: Sequence[PlanOutcome],
    *,
    along: Sequence[Direction],
    actions: Sequence[str],
    splits: Mapping[tuple[str, str], str],
    min_gap: float = metrics.MIN_GAP,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures per k of known outcomes; arguments and result as of `summarise`."""
    report: dict[str, Any] = {}
    for k in sorted({configuration.k for configuration in found}):
        of_k = [configuration for configuration in found if configuration.k == k]
        here = [row for row in rows if row.configuration.k == k]
        report[str(k)] = _figures(of_k, here, along, actions, splits, min_gap, draws, seed)
    return report


def outcomes(
    found: Sequence[Configuration],
    choosers: Mapping[Direction, Chooser],
    *,
    best_fixed: Mapping[Direction, str],
    actions: Sequence[str],
    alone: Standalone,
    base: str | None = None,
) -> list[PlanOutcome]:
    """What every method's plan is worth, per direction and configuration; arguments as in `summarise`.

    A configuration is left out of a direction where a plan that is asked for was not executed.
    """
    return [
        row
        for direction, chooser in choosers.items()
        for configuration in found
        if (row := _row(configuration, chooser, direction, best_fixed[direction], actions, alone, base)) is not None
    ]


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """One configuration in one direction.

    Attributes
    ----------
    utility
        Per method, on the scored items.
    expert, auxiliary
        References of GapClosed.
    rank_share
        Share of the executed plans that are worse than the chosen one, ties by half.
    pool
        Number of executed plans.
    plan, predicted
        The selector's plan and what it predicted for it.
    """

    direction: Direction
    configuration: Configuration
    utility: dict[str, float]
    expert: float
    auxiliary: float
    rank_share: float
    pool: int
    plan: Plan
    predicted: float | None


def _row(
    configuration: Configuration,
    chooser: Chooser,
    direction: Direction,
    best_fixed: str,
    actions: Sequence[str],
    alone: Standalone,
    base: str | None,
) -> PlanOutcome | None:
    """Every method's utility on one configuration, or None where a plan that is asked for was not executed."""
    table = configuration.utilities
    seen, scored = direction.chosen_on, direction.scored_on

    def mean(keys: Sequence[PlanKey]) -> float | None:
        values = [table.get(key, {}).get(scored) for key in keys]
        return None if not values or None in values else float(np.mean([v for v in values if v is not None]))

    choice = chooser(configuration.target, configuration.members)
    allowed = _with_mirrored(actions)
    pool = sorted(key for key, v in table.items() if set(key[1]) <= allowed and seen in v and scored in v)
    ends = references(configuration, alone, scored)
    utility = {
        "simmerge": mean([canonical(choice.plan)]),
        "expert_last_best_fixed": mean(expert_last(configuration, best_fixed)),
        "random_order": mean(same_operators(choice.plan)),
    }
    if None in utility.values() or ends is None or not pool:
        return None
    on_seen = np.array([[table[key][seen] for key in pool]])  # (1, plans)
    on_scored = np.array([table[key][scored] for key in pool])
    utility["oracle"] = float(tied_best(on_seen)[0] @ on_scored)
    if not configuration.targets:
        utility["random_plan"] = float(on_scored.mean())
    for action in actions:
        utility[f"random_order_{method_name(action)}"] = mean(any_order(configuration, action))
        utility[f"expert_last_{method_name(action)}"] = mean(expert_last(configuration, action))
    expert, auxiliary = ends
    utility |= {
        "parent_expert": expert,
        "parent_auxiliary": auxiliary,
        "base": _alone(base, configuration, alone, scored) if base else None,
    }
    utility["keep_better_parent"] = _better_parent(configuration, alone, seen, scored)
    value = utility["simmerge"]
    assert value is not None
    return PlanOutcome(
        direction,
        configuration,
        {name: u for name, u in utility.items() if u is not None},
        expert,
        auxiliary,
        float((on_scored < value).mean() + 0.5 * (on_scored == value).mean()),
        len(pool),
        choice.plan,
        choice.predicted,
    )


def _with_mirrored(actions: Sequence[str]) -> set[str]:
    parsed = [parse_action(action) for action in actions]
    return {str(action) for action in parsed} | {str(action.mirrored()) for action in parsed}


def _alone(checkpoint: str, configuration: Configuration, alone: Standalone, item_set: str) -> float | None:
    """Score of one unmerged model, mean over the tasks that count; None where one is missing."""
    scores = [alone.get((checkpoint, task, item_set)) for task, _ in configuration.parts]
    known = [float(score) for score in scores if score is not None]
    return float(np.mean(known)) if len(known) == len(scores) else None


def _better_parent(configuration: Configuration, alone: Standalone, seen: str, scored: str) -> float | None:
    """The parent that is best on the items that one may look at; the first of equal ones."""
    known = {c: _alone(c, configuration, alone, seen) for c in configuration.members}
    usable = {c: score for c, score in known.items() if score is not None}
    return _alone(max(usable, key=lambda c: usable[c]), configuration, alone, scored) if usable else None


def references(configuration: Configuration, alone: Standalone, item_set: str) -> tuple[float, float] | None:
    """Score of the expert and mean score of the others, mean over the tasks that count; None where one is missing."""
    experts, auxiliaries = [], []
    for task, expert in configuration.parts:
        own = alone.get((expert, task, item_set))
        others = [alone.get((c, task, item_set)) for c in configuration.members if c != expert]
        known = [float(score) for score in others if score is not None]
        if own is None or len(known) < len(others):
            return None
        experts.append(float(own))
        auxiliaries.append(metrics.auxiliary_score(known))
    return float(np.mean(experts)), float(np.mean(auxiliaries))


def _figures(
    of_k: Sequence[Configuration],
    rows: Sequence[PlanOutcome],
    along: Sequence[Direction],
    actions: Sequence[str],
    splits: Mapping[tuple[str, str], str],
    min_gap: float,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    inside = [[splits.get((c.expert, other), "unlabelled") for other in c.auxiliaries] for c in of_k]
    flat = [split for row in inside for split in row]
    allowed, joint = _with_mirrored(actions), any(c.targets for c in of_k)
    figures: dict[str, Any] = {
        "target": "parents_tasks" if joint else "expert_task",
        "configurations": len(of_k),
        "rows": len(rows),
        "without_needed_plans": len(of_k) * len(along) - len(rows),
        "executed_plans": sum(set(steps) <= allowed for c in of_k for _, steps in c.utilities),
        "directions": [{"chosen_on": d.chosen_on, "scored_on": d.scored_on, "honest": d.honest} for d in along],
        # §3.2 wants no expert-auxiliary pair of the training set inside a configuration; this says how far that holds.
        "expert_auxiliary_pairs_inside": {s: flat.count(s) for s in sorted(set(flat))},
        "configurations_without_training_pairs": sum(not set(row) & set(TRAINING_SPLITS) for row in inside),
        # Other pairs inside were trained on for other tasks: the rule is about a task's expert and its auxiliaries.
        "configurations_without_any_training_pair": sum(
            not {splits.get(pair, "unlabelled") for pair in combinations(c.members, 2)} & set(TRAINING_SPLITS)
            for c in of_k
        ),
    }
    if not rows:
        return figures
    names = [name for name in rows[0].utility if all(name in row.utility for row in rows)]
    utility = {name: np.array([row.utility[name] for row in rows]) for name in names}
    tasks = np.array([row.configuration.task for row in rows])
    expert, auxiliary = np.array([row.expert for row in rows]), np.array([row.auxiliary for row in rows])
    # Over the tasks of all parents every checkpoint is an expert, and carries the rows' dependence.
    carriers = [[e for _, e in row.configuration.parts] if joint else [row.configuration.expert] for row in rows]
    weights = cluster_weights(np.array(carriers), draws=draws, seed=seed)
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
    gaps = Gaps(tasks[:, None], expert[:, None], auxiliary[:, None], min_gap)
    mine = utility["simmerge"][:, None]
    figures["gap_intervals"] = {n: interval(gaps.macro(v[:, None]), weights).as_dict() for n, v in utility.items()}
    figures["points_over"] = {
        n: interval(gaps.points(mine, v[:, None]), weights).as_dict() for n, v in utility.items() if n != "simmerge"
    }
    figures["gain_over_random_order"] = interval(
        weighted_mean(utility["simmerge"] - utility["random_order"]), weights
    ).as_dict()
    figures["mean_pool"] = float(np.mean([row.pool for row in rows]))  # executed plans that the oracle chooses among
    if not joint:
        figures["mean_rank_share"] = float(np.mean([row.rank_share for row in rows]))
    predicted = [(row.predicted, row.utility["simmerge"]) for row in rows if row.predicted is not None]
    figures["mean_predicted"] = float(np.mean([p for p, _ in predicted])) if predicted else None
    figures["per_task"] = per_task
    return figures
