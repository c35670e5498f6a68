"""Units of the comparison: what one choice is made for, with the utility of every action on each item set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from simmerge_core.analysis.scores import standalone, task_scores
from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import parse_action

Target = Literal["expert_task", "both_tasks"]


@dataclass(frozen=True, slots=True)
class Units:
    """Labelled pairs as arrays: n units, p parts (tasks scored per unit), m actions.

    Attributes
    ----------
    target
        ``expert_task``: a unit is (expert, auxiliary) on the expert's task, p = 1, `a` is the expert (§3.2).
        ``both_tasks``: a unit is an unordered pair of two domains on both parents' tasks, p = 2, a < b; part 0 is a's
        task.
    actions
        The m actions, as seen from (a, b).
    a, b, split
        Checkpoints and split of each unit, (n,).
    tasks
        Task of each part, (n, p).
    utilities
        Per item set: utility of each action, (n, p, m), float64.
    expert, auxiliary, base
        Per item set: score of each part's own expert, of the other parent, and of the base (NaN where it was not
        scored), (n, p), float64.
    incomplete
        Pairs of the target left out because an action, an item set or a parent's score is missing.
    """

    target: Target
    actions: tuple[str, ...]
    a: np.ndarray
    b: np.ndarray
    split: np.ndarray
    tasks: np.ndarray
    utilities: Mapping[str, np.ndarray]
    expert: Mapping[str, np.ndarray]
    auxiliary: Mapping[str, np.ndarray]
    base: Mapping[str, np.ndarray]
    incomplete: int

    @property
    def item_sets(self) -> tuple[str, ...]:
        """Names of the item sets, sorted."""
        return tuple(sorted(self.utilities))

    def __len__(self) -> int:
        return len(self.a)


def with_mirrors(scores: pl.DataFrame) -> pl.DataFrame:
    """Add to rows (a, b, action) the same merges as (b, a, mirrored action): o(a, b; α) = o(b, a; 1 − α)."""
    actions = scores["action"].unique().to_list()
    mirrored = {action: str(parse_action(action).mirrored()) for action in actions}
    swapped = scores.with_columns(
        pl.col("b").alias("a"),
        pl.col("a").alias("b"),
        pl.col("action").replace_strict(mirrored, return_dtype=pl.String),
    )
    both = pl.concat([scores, swapped.select(scores.columns)])
    return both.unique(["task", "a", "b", "action", "item_set"], keep="first", maintain_order=True)


def build_units(
    labels: pl.DataFrame,
    standalone_scores: pl.DataFrame,
    *,
    actions: Sequence[str],
    domains: Mapping[str, str],
    base: str,
    counted: pl.DataFrame,
    item_sets: Sequence[str],
    target: Target,
) -> Units:
    """Collect the units of a target from the label tables.

    Parameters
    ----------
    labels, standalone_scores
        Tables `merge_labels` and `standalone_scores`, with their partition columns.
    actions
        Texts of the m actions.
    domains
        Domain by checkpoint.
    base
        Id of the base in `standalone_scores`.
    counted
        As `scores.counted_metrics` returns it.
    item_sets
        The item sets to compare on; a unit has all of them.

    Raises
    ------
    SelectionError
        If there is not one complete unit.
    """
    scores = with_mirrors(task_scores(labels, by=["a", "b", "action", "split"], counted=counted))
    alone = standalone(standalone_scores, counted=counted)
    wanted = [str(parse_action(action)) for action in actions]
    utility: dict[tuple[str, str, str, str, str], float] = {}
    splits: dict[tuple[str, str], str] = {}
    scored: set[tuple[str, str, str]] = set()
    for task, a, b, action, split, item_set, value in scores.filter(pl.col("action").is_in(wanted)).iter_rows():
        utility[task, a, b, action, item_set] = value
        splits[a, b] = split
        scored.add((task, a, b))

    candidates = _candidates(splits, domains, scored, target)
    rows = []
    for a, b, tasks in candidates:
        values = [[[utility.get((t, a, b, o, s), np.nan) for o in wanted] for t in tasks] for s in item_sets]
        expert = [[alone.get((a if domains[a] == t else b, t, s), np.nan) for t in tasks] for s in item_sets]
        auxiliary = [[alone.get((b if domains[a] == t else a, t, s), np.nan) for t in tasks] for s in item_sets]
        if np.isfinite(values).all() and np.isfinite(expert).all() and np.isfinite(auxiliary).all():
            base_scores = [[alone.get((base, t, s), np.nan) for t in tasks] for s in item_sets]
            rows.append((a, b, tasks, values, expert, auxiliary, base_scores))
    if not rows:
        raise SelectionError(
            f"There is no pair with labels of all of {', '.join(wanted)} and with both parents' scores, for the target "
            f"{target}: materialize merge_labels and standalone_scores first."
        )

    def per_set(column: int) -> dict[str, np.ndarray]:
        stacked = np.array([row[column] for row in rows], dtype=np.float64)  # (n, sets, p[, m])
        return {s: np.ascontiguousarray(stacked[:, number]) for number, s in enumerate(item_sets)}

    return Units(
        target=target,
        actions=tuple(wanted),
        a=np.array([row[0] for row in rows]),
        b=np.array([row[1] for row in rows]),
        split=np.array([splits[row[0], row[1]] for row in rows]),
        tasks=np.array([row[2] for row in rows]),
        utilities=per_set(3),
        expert=per_set(4),
        auxiliary=per_set(5),
        base=per_set(6),
        incomplete=len(candidates) - len(rows),
    )


def _candidates(
    splits: Mapping[tuple[str, str], str],
    domains: Mapping[str, str],
    scored: set[tuple[str, str, str]],
    target: Target,
) -> list[tuple[str, str, tuple[str, ...]]]:
    """Units that have at least one label, sorted: (a, b, tasks of the parts)."""
    found: list[tuple[str, str, tuple[str, ...]]] = []
    for a, b in sorted(splits):
        if a not in domains or b not in domains or domains[a] == domains[b]:
            continue
        if target == "expert_task" and (domains[a], a, b) in scored:
            found.append((a, b, (domains[a],)))
        elif target == "both_tasks" and a < b and {(domains[a], a, b), (domains[b], a, b)} & scored:
            found.append((a, b, (domains[a], domains[b])))
    return found
