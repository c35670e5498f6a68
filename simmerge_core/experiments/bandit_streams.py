"""What arrives in the online experiment (§3.2, §4.5): merges with checkpoints of a domain that no label knew."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, product

import numpy as np
import polars as pl

from simmerge_core.analysis.protocol import TRAINING_SPLITS
from simmerge_core.analysis.scores import item_sets_of, task_scores
from simmerge_core.analysis.units import Target as UnitTarget
from simmerge_core.catalog import Catalog
from simmerge_core.errors import SelectionError
from simmerge_core.experiments.data import ExperimentData, Progress, silent
from simmerge_core.labels import shares_of, split_of
from simmerge_core.labels.pairs import fraction
from simmerge_core.operators.actions import parse_action
from simmerge_core.planning import PairTable, pair_table, target_of
from simmerge_core.planning.target import Target
from simmerge_core.plans import Plan, plan_of
from simmerge_core.selector import TrainingRows, training_rows


@dataclass(frozen=True)
class Merge:
    """One merge that arrives: its checkpoints in the order of the plan, and the utility of all that may be chosen.

    Attributes
    ----------
    order
        Auxiliaries, then the expert of the target task; of a pair for both tasks, as labelled.
    target
        Task or tasks.
    utilities
        By the texts of the actions of the first steps, utility on the target after them.
    expert, auxiliary
        Score of the expert and mean score of the auxiliaries alone on the target (§3.4).
    new
        The checkpoint of the new domain.
    """

    order: tuple[str, ...]
    target: Target
    utilities: Mapping[tuple[str, ...], float]
    expert: float
    auxiliary: float
    new: str

    @property
    def k(self) -> int:
        """Checkpoints merged."""
        return len(self.order)

    @cached_property
    def best(self) -> float:
        """Utility of the oracle: of the best sequence of actions, known only afterwards."""
        return max(u for actions, u in self.utilities.items() if len(actions) == self.k - 1)

    @property
    def other(self) -> str:
        """A second checkpoint, for intervals that resample checkpoints."""
        return next(c for c in reversed(self.order) if c != self.new)


@dataclass(frozen=True)
class Stream:
    """Merges, the actions to choose among, and the labels that were known before.

    Attributes
    ----------
    warm
        Rows without the new domain, neither as a checkpoint's nor as a task; of splits train and validation.
    table
        Features of all pairs on all tasks.
    """

    name: str
    actions: tuple[str, ...]
    merges: tuple[Merge, ...]
    warm: TrainingRows
    features: pl.DataFrame = field(repr=False)
    new_task: str

    @cached_property
    def tables(self) -> Mapping[tuple[tuple[str, ...], tuple[str, ...]], PairTable]:
        """Features by checkpoints and tasks of each merge."""
        from simmerge_core.selector import SelectorConfig

        names = SelectorConfig().feature_names()
        return {
            (m.order, m.target.tasks): pair_table(
                self.features.filter(pl.col("a").is_in(m.order) & pl.col("b").is_in(m.order)),
                checkpoints=m.order,
                tasks=m.target.tasks,
                feature_names=names,
            )
            for m in self.merges
        }

    def table(self, merge: Merge) -> PairTable:
        """Features of the pairs of a merge."""
        return self.tables[merge.order, merge.target.tasks]


def warm_rows(data: ExperimentData, actions: Sequence[str], new: str) -> TrainingRows:
    """Labels of all items of training and validation pairs in which the new domain has no part."""
    metric = dict(data.counted.select("benchmark", "metric").iter_rows())
    rows = training_rows(
        data.features, data.labels, actions=actions, metric=metric, item_set=list(item_sets_of(data.catalog))
    )
    known = (pl.col("a_domain") != new) & (pl.col("b_domain") != new) & (pl.col("task") != new)
    return rows.filter(rows.meta.select(known).to_series()).of_split(*TRAINING_SPLITS)


def merge_stream(data: ExperimentData, progress: Progress = silent) -> Stream:
    """The paper's stream: two-, three- and four-way merges under the paper's actions, every choice executed.

    Merges are scored on the items of all sets, since nothing of a pair that is scored was learned from.
    """
    rules = data.protocol.bandit
    actions = tuple(str(action) for action in data.catalog.actions("paper"))
    chosen = [
        (task, order)
        for k, count in sorted(rules.merges.items())
        for task, order in configurations(data.catalog, sorted(data.fingerprints), k=k, count=count, new=rules.shift)
    ]
    requests = [
        (plan_of(order[: step + 1], steps), task)
        for task, order in chosen
        for step in range(1, len(order))
        for steps in product(actions, repeat=step)
    ]
    frame = data.execute(requests, progress)
    utilities = _utilities(data, frame)
    merges = []
    for task, order in chosen:
        found = {
            steps: utilities[task, str(plan_of(order[: step + 1], steps))]
            for step in range(1, len(order))
            for steps in product(actions, repeat=step)
        }
        *auxiliaries, expert = order
        merges.append(
            Merge(
                order,
                target_of(task),
                found,
                _alone(data, expert, task),
                float(np.mean([_alone(data, c, task) for c in auxiliaries])),
                next(c for c in order if data.catalog.domains[c] == rules.shift),
            )
        )
    return Stream("merges", actions, tuple(merges), warm_rows(data, actions, rules.shift), data.features, rules.shift)


def pair_stream(data: ExperimentData, actions: str, target: UnitTarget) -> Stream:
    """Every labelled pair with a checkpoint of the new domain, on the expert's task or on both parents' tasks."""
    new, units = data.protocol.bandit.shift, data.units(actions, target)
    domains = data.catalog.domains
    utility = np.mean([units.utilities[s] for s in units.item_sets], axis=0).mean(axis=1)  # (n, m)
    expert = np.mean([units.expert[s] for s in units.item_sets], axis=0).mean(axis=1)
    auxiliary = np.mean([units.auxiliary[s] for s in units.item_sets], axis=0).mean(axis=1)
    merges = []
    for i, (a, b) in enumerate(zip(units.a.tolist(), units.b.tolist(), strict=True)):
        if new not in (domains[a], domains[b]):
            continue
        # With one task the unit is (expert, auxiliary) and the plan's order the reverse: so are its actions.
        turned = target == "expert_task"
        merges.append(
            Merge(
                (b, a) if turned else (a, b),
                target_of(units.tasks[i].tolist()),
                {
                    (str(parse_action(text).mirrored()) if turned else text,): float(utility[i, column])
                    for column, text in enumerate(units.actions)
                },
                float(expert[i]),
                float(auxiliary[i]),
                a if domains[a] == new else b,
            )
        )
    name = f"pairs_{actions}"
    return Stream(name, units.actions, tuple(merges), warm_rows(data, units.actions, new), data.features, new)


def configurations(
    catalog: Catalog, known: Sequence[str], *, k: int, count: int, new: str
) -> list[tuple[str, tuple[str, ...]]]:
    """Target task and order of `count` merges of k checkpoints with one of the new domain, as many for each task.

    At most one checkpoint per domain (§3.2), the expert last, and no pair that the warm start was fitted on: pairs
    without the new domain are test pairs. The lowest hashes decide.

    Raises
    ------
    SelectionError
        If there are not enough.
    """
    domains = {c: catalog.checkpoint(c).domain for c in known if c != catalog.base.id}
    tasks, salt = catalog.task_ids, catalog.labels.salt
    each = count // len(tasks)
    found: list[tuple[str, tuple[str, ...]]] = []
    for task in tasks:
        best = heapq.nsmallest(
            each,
            _candidates(catalog, domains, task, k=k, new=new),
            key=lambda order, task=task: fraction(salt, "bandit", task, *order),  # type: ignore[misc]
        )
        if len(best) < each:
            raise SelectionError(
                f"Only {len(best)} merges of {k} checkpoints for task {task!r} hold a checkpoint of {new!r} and no "
                f"training pair, and the experiment needs {each}: build the full catalog."
            )
        found += [(task, order) for order in best]
    return found


def _candidates(
    catalog: Catalog, domains: Mapping[str, str], task: str, *, k: int, new: str
) -> Iterator[tuple[str, ...]]:
    shares, salt = shares_of(catalog), catalog.labels.salt
    experts = [c for c, domain in domains.items() if domain == task]
    others = [c for c, domain in domains.items() if domain != task]

    def unseen(a: str, b: str) -> bool:
        return new in (domains[a], domains[b]) or split_of(a, b, shares=shares, salt=salt) == "test"

    for rest in combinations(others, k - 1):
        if len({domains[c] for c in rest}) < k - 1 or not all(unseen(a, b) for a, b in combinations(rest, 2)):
            continue
        for expert in experts:
            members = (*rest, expert)
            if new in {domains[c] for c in members} and all(unseen(c, expert) for c in rest):
                yield members


def _utilities(data: ExperimentData, frame: pl.DataFrame) -> dict[tuple[str, str], float]:
    """Task score over all item sets by (task, text of the plan)."""
    plans = [
        str(Plan(tuple(order), tuple(map(parse_action, actions))))
        for order, actions in frame.select("order", "actions").iter_rows()
    ]
    scores = task_scores(frame.with_columns(pl.Series("plan", plans)), by=["plan"], counted=data.counted)
    means = scores.group_by("task", "plan").agg(pl.mean("utility"))
    return {(task, plan): utility for task, plan, utility in means.iter_rows()}


def _alone(data: ExperimentData, checkpoint: str, task: str) -> float:
    return float(np.mean([data.alone[checkpoint, task, s] for s in item_sets_of(data.catalog)]))
