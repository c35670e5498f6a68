"""Transfer to larger models: every pair is scored, and the carried action is the small catalog's best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from experiments_world import WorldData, make_data

from simmerge_core.analysis.protocol import best_fixed
from simmerge_core.experiments import transfer
from simmerge_core.experiments.data import silent
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.result import Result
from simmerge_core.experiments.transfer import _all_test, _all_training
from simmerge_core.selector import MODELS

BONUS = 0.5


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> WorldData:
    """Another catalog, in which two more actions are best: one on items A, another on items B."""
    found = make_data(tmp_path_factory.mktemp("larger"), seed=1, parameters=6000)
    better = ((pl.col("action") == "ties@0.5") & (pl.col("item_set") == "A")) | (
        (pl.col("action") == "linear@0.5") & (pl.col("item_set") == "B")
    )
    labels = found.labels.with_columns(pl.col("utility") + pl.when(better).then(BONUS).otherwise(0.0))
    return replace(found, labels=labels)


@pytest.fixture(scope="module")
def small(data: WorldData) -> WorldData:
    """Slerp is best on items A, linear on B; pairs of split test say that ties is."""
    better = ((pl.col("action") == "slerp@0.5") & (pl.col("item_set") == "A")) | (
        (pl.col("action") == "linear@0.5") & (pl.col("item_set") == "B")
    )
    misleading = (pl.col("action") == "ties@0.5") & (pl.col("split") == "test")
    bonus = pl.when(misleading).then(100.0).when(better).then(BONUS).otherwise(0.0)
    return replace(data, labels=data.labels.with_columns(pl.col("utility") + bonus))


@pytest.fixture(scope="module")
def result(small: WorldData, larger: WorldData) -> Result:
    """The experiment with best fixed actions in the place of all that is trained, and without plans."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "RIVALS", ())
        patch.setattr(transfer, "adapted", lambda selector, features, **options: selector)
        patch.setattr(WorldData, "selector", lambda self, rows, *a, **o: MODELS["best_fixed"](rows))
        patch.setattr(
            transfer, "_own", lambda large, units, d: np.zeros((len(units), units.tasks.shape[1], len(units.actions)))
        )
        patch.setattr(transfer, "executed", lambda *a, **o: [])
        columns = ("expert", "auxiliaries", "expert_score", "auxiliary_score")
        patch.setattr(transfer, "summary", lambda *a, **o: ({}, pl.DataFrame(schema=dict.fromkeys(columns, pl.String))))
        patch.setattr(transfer, "_as_pairs", lambda plans, name: pl.DataFrame())
        return transfer.run(Catalogs(small, larger), silent)


@pytest.mark.parametrize(("actions", "target"), [("paper", "expert_task"), ("extended", "both_tasks")])
def test_every_pair_is_scored_and_every_pair_chooses_the_fixed_action(
    larger: WorldData, actions: str, target: Any
) -> None:
    units = larger.units(actions, target)
    assert set(units.split) > {"test"}
    twice = _all_test(units)

    def table(u: Any, index: np.ndarray) -> list[tuple[Any, ...]]:
        scores = [by[s][index] for by in (u.utilities, u.expert, u.auxiliary, u.base) for s in ("A", "B")]
        return [(u.a[i], u.b[i], *u.tasks[i], *(part[n].tobytes() for part in scores)) for n, i in enumerate(index)]

    everything = table(units, np.arange(len(units)))
    assert len(set(everything)) == len(everything)
    for split in ("test", "train"):
        assert table(twice, np.flatnonzero(twice.split == split)) == everything
    assert len(twice) == 2 * len(units)
    for items in "AB":
        means = [np.mean([units.utilities[items][:, :, j]]) for j in range(len(units.actions))]
        assert best_fixed(twice, items) == best_fixed(_all_training(units), items) == int(np.argmax(means))


def _best_on_training_pairs(data: WorldData, actions: tuple[str, ...], target: str, items: str) -> str:
    """Highest mean over the training pairs of the label rows, each pair once on each of its target's tasks."""
    domains = data.catalog.domains
    totals: dict[str, list[float]] = {action: [] for action in actions}
    for row in data.labels.iter_rows(named=True):
        a, b = domains[row["a"]], domains[row["b"]]
        wanted = a != b and row["task"] in (a, b)
        counted = row["metric"] == "acc,none" and row["item_set"] == items and row["split"] in ("train", "validation")
        if wanted and counted and row["action"] in totals:
            totals[row["action"]].append(row["utility"])
    return max(actions, key=lambda action: np.mean(totals[action]))


def test_the_carried_action_is_the_best_of_the_small_catalogs_training_pairs(
    small: WorldData, larger: WorldData, result: Result
) -> None:
    seen, taken = set(), set()
    for actions, target in (("paper", "expert_task"), ("extended", "both_tasks")):
        units = larger.units(actions, target)  # type: ignore[arg-type]
        raw = result.rows.filter((pl.col("actions") == actions) & (pl.col("method") == "best_fixed_carried"))
        expected = []
        for chosen_on, scored_on in (("A", "B"), ("B", "A")):
            best = _best_on_training_pairs(small, units.actions, target, chosen_on)
            own = units.utilities[scored_on][:, :, units.actions.index(best)]
            expected.append(own.mean())
            here = raw.filter(pl.col("direction") == f"{chosen_on}->{scored_on}")
            assert set(here["action"]) == {best}
            assert here.height == own.size
            assert set(here.select("a", "b").rows()) == set(zip(units.a, units.b, strict=True))
            seen.add(best)
            taken.add(_best_on_training_pairs(larger, units.actions, target, chosen_on))
        figures = result.figures[actions]
        assert figures["pairs"] == len(units)
        assert figures["utility"]["best_fixed_carried"] == pytest.approx(np.mean(expected))
        assert figures["utility"]["best_fixed_carried"] != pytest.approx(figures["utility"]["best_fixed"])
    assert seen == {"slerp@0.5", "linear@0.5"}
    assert "slerp@0.5" not in taken


def test_the_larger_catalogs_own_best_is_chosen_over_all_its_pairs_on_the_other_items(
    larger: WorldData, result: Result
) -> None:
    units = larger.units("paper", "expert_task")
    expected = []
    for chosen_on, scored_on in (("A", "B"), ("B", "A")):
        best = int(units.utilities[chosen_on].mean(axis=(0, 1)).argmax())
        expected.append(units.utilities[scored_on][:, :, best].mean())
    assert result.figures["paper"]["utility"]["best_fixed"] == pytest.approx(np.mean(expected))
    assert result.figures["parameter_ratio"] == 6.0


def test_an_action_carried_over_has_no_choice_for_the_worse_task(result: Result) -> None:
    closed = result.figures["extended"]["minimum"]["min_gap_closed"]
    assert "best_fixed_carried" not in closed
    assert {"simmerge", "adapted", "own_selector", "best_fixed"} <= set(closed)
