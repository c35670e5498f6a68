"""Whether the intervals can be relied on: their coverage, their width, and what "cannot be told apart" leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis import multiway
from simmerge_core.analysis.protocol import TIE, Direction
from simmerge_core.analysis.reporting import plan_chooser
from simmerge_core.experiments.data import ExperimentData, Progress, part_of
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.held_out import planned_folds
from simmerge_core.experiments.pairs import TARGETS
from simmerge_core.experiments.plans import executed, remembered
from simmerge_core.experiments.result import Result
from simmerge_core.selector import Selector, TrainingRows, interval_coverage


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """Coverage on pairs and checkpoints that nothing was fitted to, on the items of training and on the others.

    An interval is calibrated on labels from one item set. On the same items a new pair is exchangeable with the
    labelled ones; on other items all scores move together by what the items differ in difficulty, which no label tells.
    """
    data = catalogs.full
    figures: dict[str, Any] = {}
    records: list[dict[str, Any]] = []
    for number, (name, target) in enumerate(TARGETS.items()):
        tell = part_of(progress, f"{name} actions", number, len(TARGETS) + 1)
        actions = tuple(map(str, data.catalog.actions(name)))
        rows = {d: data.rows(actions, d) for d in data.along}
        other = dict(zip(data.along, reversed(data.along), strict=True))
        units = data.units(name, target)
        folds = {d: [split(rows[d]) for _, _, split in planned_folds(data, units, rows[d], "experts")] for d in rows}
        held = {d: [rows[d].with_split(s) for s in splits] for d, splits in folds.items()}
        data.train_ahead([(r, None) for d in rows for r in (rows[d], *held[d])], tell)
        found: list[dict[str, Any]] = []
        for d in data.along:
            for items, table in (("items of training", rows[d]), ("other items", rows[other[d]])):
                about = {"actions": name, "direction": str(d), "items": items}
                own = data.selector(rows[d])
                found.append({**about, "split": "pairs", **_covered(own, table.of_split("test"))})
                for split, learned in zip(folds[d], held[d], strict=True):
                    unseen = table.with_split(_same_rows(rows[d], table, split)).of_split("test")
                    covered = _covered(data.selector(learned), unseen)
                    found.append({**about, "split": "held_out_experts", **covered})
        records += found
        figures[name] = {
            "coverage": {
                split: {
                    items: _mean([f for f in found if f["split"] == split and f["items"] == items])
                    for items in ("items of training", "other items")
                }
                for split in ("pairs", "held_out_experts")
            },
            "apart": _told_apart(data, rows, other),
        }
    figures["plans"] = _plans(data, part_of(progress, "plans", len(TARGETS), len(TARGETS) + 1))
    flat = [{k: v for k, v in record.items() if not isinstance(v, Mapping)} for record in records]
    return Result(pl.DataFrame(flat), figures)


def _covered(selector: Selector, rows: TrainingRows) -> dict[str, Any]:
    found = interval_coverage(selector, rows)
    return {key: value for key, value in found.items() if key != "by_task"}


def _same_rows(rows: TrainingRows, table: TrainingRows, split: np.ndarray) -> list[str]:
    """The split of `rows` for a table of the same merges under other labels."""
    keys = ["a", "b", "task"]
    known = rows.meta.select(keys).with_columns(pl.Series("split", split.astype(str)))
    return table.meta.select(keys).join(known, on=keys, how="left", maintain_order="left")["split"].to_list()


def _mean(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over directions and folds, weighted by merges."""
    weight = np.array([f["merges"] for f in found], dtype=np.float64)

    def mean(values: list[float]) -> float:
        return float(np.average(values, weights=weight))

    kinds = sorted(set.intersection(*(set(f["differences"]) for f in found)))
    return {
        "level": found[0]["level"],
        "merges": int(weight.sum()),
        **{k: mean([f[k] for f in found]) for k in ("every_action", "chosen_action", "mean_half_width")},
        "differences": {kind: mean([f["differences"][kind] for f in found]) for kind in kinds},
    }


def _told_apart(
    data: ExperimentData, rows: Mapping[Direction, TrainingRows], other: Mapping[Direction, Direction]
) -> dict[str, float]:
    """Per test row: actions that cannot be told apart from the chosen one, and what trying those is worth.

    ``holds_best``: how often an action that is best on the other items is among them. ``settled``: mean utility on the
    other items when all of them are merged, scored on the items of training, and the best one is kept.
    """
    sizes, holds, utilities = [], [], []
    for d in data.along:
        selector = data.selector(rows[d])
        seen, scored = (rows[x].of_split("test") for x in (d, other[d]))
        order = seen.meta.select("a", "b", "task").rows()
        place = {key: i for i, key in enumerate(scored.meta.select("a", "b", "task").rows())}
        prediction = selector.predict(seen.features)
        members, half = prediction.members, prediction.half_width
        assert members is not None
        assert half is not None
        for i, chosen in enumerate(prediction.choice().tolist()):
            lead = members[:, i, chosen, None] - members[:, i]  # (members, actions)
            width = selector.calibration.difference_half_width("same_pair", lead.std(axis=0), half[i, chosen], half[i])
            open_actions = lead.mean(axis=0) - width <= 0
            open_actions[chosen] = True
            true = scored.utilities[place[order[i]]]
            among = np.flatnonzero(open_actions)
            sizes.append(len(among))
            holds.append(bool((true[among] >= true.max() - TIE).any()))
            settled = among[int(seen.utilities[i, among].argmax())]
            utilities.append((true[chosen], true[settled], true[int(seen.utilities[i].argmax())]))
    chosen_u, settled_u, best_u = np.array(utilities).mean(axis=0)
    return {
        "actions": len(next(iter(rows.values())).actions),
        "mean_open": float(np.mean(sizes)),
        "holds_best": float(np.mean(holds)),
        "chosen": float(chosen_u),
        "settled": float(settled_u),
        "evaluate_all": float(best_u),
    }


def _plans(data: ExperimentData, progress: Progress) -> dict[str, Any]:
    """Coverage of the chosen plan's interval by k, paper's actions: calibration has seen pairs only."""
    actions = tuple(map(str, data.catalog.actions("paper")))
    inside: dict[tuple[int, str], list[bool]] = {}
    errors: dict[tuple[int, str], list[float]] = {}
    rows = {d: data.rows(actions, d) for d in data.along}
    choosers = {d: remembered(plan_chooser(data.selector(rows[d]), data.features)) for d in data.along}
    found = executed(data, list(choosers.values()), [actions[0]] * len(choosers), progress, baselines=False)
    for d in data.along:
        for c in found:
            best = choosers[d](c.task, c.members)
            assert best.predicted is not None
            assert best.low is not None
            assert best.high is not None
            scores = c.utilities.get(multiway.canonical(best.plan), {})
            for items, item_set in (("items of training", d.chosen_on), ("other items", d.scored_on)):
                if item_set in scores:
                    inside.setdefault((c.k, items), []).append(best.low <= scores[item_set] <= best.high)
                    errors.setdefault((c.k, items), []).append(scores[item_set] - best.predicted)
    level = data.selector(rows[data.along[0]]).calibration.level
    return {
        f"{k}": {
            items: {
                "level": level,
                "plans": len(values),
                "chosen_plan": float(np.mean(values)),
                "mean_error": float(np.mean(errors[k, items])),
            }
            for (size, items), values in inside.items()
            if size == k
        }
        for k in sorted({size for size, _ in inside})
    }
