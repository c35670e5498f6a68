"""The whole report from a data root: promised keys, honest arithmetic, replaced checkpoints, text."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from analysis_world import DOMAINS, TableSelector, World, benchmark_row
from rich.console import Console

from simmerge_core import analysis
from simmerge_core.analysis import multiway, reporting, rivals
from simmerge_core.analysis.protocol import Direction
from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import ACTION_SETS, parse_action
from simmerge_core.plans import plan_of
from simmerge_core.tables import CHECKPOINTS, DataRoot

AB, BA = Direction("A", "B"), Direction("B", "A")
EXTENDED = tuple(map(str, ACTION_SETS["extended"]))
PAPER = tuple(map(str, ACTION_SETS["paper"]))
KEYS = {"simmerge", "best_fixed", "best_fixed_per_task", "random", "oracle", "linear", "slerp", "ties"}


class FrameRoot(DataRoot):
    """A data root whose tables are frames in memory."""

    def __init__(self, root: Path, frames: dict[str, pl.DataFrame]) -> None:
        super().__init__(root)
        self.frames = frames

    def scan(self, table: Any, *, where: Any = None) -> pl.LazyFrame:
        if table.name in self.frames:
            return self.frames[table.name].lazy()
        return super().scan(table, where=where)


def last_is_expert(selector: Any, features: pl.DataFrame) -> multiway.Chooser:
    def choose(task: str, members: tuple[str, ...]) -> multiway.Choice:
        order = sorted(members, key=lambda m: (DOMAINS[m] == task, m))
        return multiway.Choice(plan_of(order, ["slerp@0.5", "linear@0.5"]), 0.45, 0.02)

    return choose


@pytest.fixture
def root(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameRoot:
    monkeypatch.setattr(reporting, "plan_chooser", last_is_expert)
    return FrameRoot(
        tmp_path,
        {
            "merge_labels": world.labels,
            "standalone_scores": world.standalone,
            "pairwise_features": world.features.with_columns(
                (pl.lit("f-") + pl.col("a")).alias("a_fingerprint"), (pl.lit("f-") + pl.col("b")).alias("b_fingerprint")
            ),
            "plan_labels": world.plans,
        },
    )


def selectors(*along: Direction) -> dict[str, dict[Direction, TableSelector]]:
    noisy = lambda x: x + 0.05 * np.random.default_rng(7).standard_normal(x.shape)  # noqa: E731
    return {
        "paper": {d: TableSelector(PAPER, noisy) for d in along},
        "extended": {d: TableSelector(EXTENDED, noisy) for d in along},
    }


def made(root: FrameRoot, world: World, *along: Direction) -> dict[str, Any]:
    return analysis.report(root, world.catalog, selectors=selectors(*along), rivals=(), draws=300)


def test_the_report_has_the_promised_keys_and_is_json(root: FrameRoot, world: World) -> None:
    report = made(root, world, AB)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    for section in (report, report["extended"]):
        pairwise = section["pairwise"]
        assert pairwise["test_pairs"] > 0
        assert 0 <= pairwise["accuracy"] <= 1
        assert set(pairwise["utility"]) >= KEYS
        assert set(pairwise["gap_closed"]) >= KEYS
        assert set(pairwise["headroom_captured"]) >= {"value", "ci95"}
        assert len(pairwise["headroom_captured"]["ci95"]) == 2
        assert pairwise["split"] == "test"
        assert pairwise["directions"] == [{"chosen_on": "A", "scored_on": "B", "honest": True}]
    assert set(report["plans"]["3"]) >= {"simmerge", "expert_last_best_fixed", "random_order", "oracle"}
    assert set(report["extended"]["pairwise"]["utility"]) >= {
        *KEYS,
        "slerp@0.3",
        "norm_balanced",
        "keep_better_parent",
        "parent_expert",
        "parent_auxiliary",
        "base",
    }
    assert report["pairwise"]["target"] == "expert_task"
    assert report["extended"]["pairwise"]["target"] == "both_tasks"
    assert "random_plan" in report["plans"]["3"]


def test_figures_equal_a_reference_computed_from_the_raw_rows(root: FrameRoot, world: World) -> None:
    pairwise = made(root, world, AB)["pairwise"]
    rows = world.labels.to_dicts()
    split = {(r["a"], r["b"]): r["split"] for r in rows}
    by_task: dict[str, list[tuple[float, float, float]]] = {}
    oracle = []
    for (a, b), name in split.items():
        if name != "test":
            continue
        for expert, other in ((a, b), (b, a)):
            task = DOMAINS[expert]
            on = {s: [world.utility[task, a, b, o, s] for o in PAPER] for s in "AB"}
            oracle.append(on["B"][int(np.argmax(on["A"]))])
            by_task.setdefault(task, []).append(
                (on["B"][1], world.alone[expert, task, "B"], world.alone[other, task, "B"])
            )
    assert pairwise["utility"]["oracle"] == pytest.approx(np.mean(oracle))
    slerp = [u for entries in by_task.values() for u, _, _ in entries]
    assert pairwise["utility"]["slerp"] == pytest.approx(np.mean(slerp))
    gaps = []
    for task, entries in by_task.items():
        u, e, x = np.mean(entries, axis=0)
        gaps.append(100 * (u - x) / (e - x))
        cell = pairwise["per_task"][task]["methods"]["slerp"]
        assert cell["gap_closed"] == pytest.approx(gaps[-1])
        assert cell["delta_expert"] == pytest.approx(100 * (u - e) / e)
        assert cell["delta_aux"] == pytest.approx(100 * (u - x) / x)
    assert pairwise["gap_closed"]["slerp"] == pytest.approx(np.mean(gaps))
    each = [np.mean([100 * (u - x) / (e - x) for u, e, x in entries]) for entries in by_task.values()]
    assert pairwise["gap_closed_per_merge"]["slerp"] == pytest.approx(np.mean(each))
    u = pairwise["utility"]
    captured = (u["simmerge"] - u["best_fixed"]) / (u["oracle"] - u["best_fixed"])
    assert pairwise["headroom_captured"]["value"] == pytest.approx(captured)


def test_extended_takes_the_mean_and_the_minimum_over_both_tasks(root: FrameRoot, world: World) -> None:
    extended = made(root, world, AB)["extended"]["pairwise"]
    means, worst = [], []
    for (a, b), split in {(r["a"], r["b"]): r["split"] for r in world.labels.to_dicts()}.items():
        if split != "test":
            continue
        u = [world.utility[DOMAINS[c], a, b, "slerp@0.3", "B"] for c in (a, b)]
        e = [world.alone[c, DOMAINS[c], "B"] for c in (a, b)]
        x = [world.alone[d, DOMAINS[c], "B"] for c, d in ((a, b), (b, a))]
        means.append(np.mean(u))
        worst.append(min(100 * (ui - xi) / (ei - xi) for ui, ei, xi in zip(u, e, x, strict=True)))
    assert extended["utility"]["slerp@0.3"] == pytest.approx(np.mean(means))
    assert extended["min_gap_closed"]["slerp@0.3"] == pytest.approx(np.mean(worst))
    assert extended["gap_closed"]["parent_expert"] == pytest.approx(100)
    assert extended["gap_closed"]["parent_auxiliary"] == pytest.approx(0)


def test_both_directions_are_averaged_and_said(root: FrameRoot, world: World) -> None:
    one, other = made(root, world, AB)["pairwise"], made(root, world, BA)["pairwise"]
    both = made(root, world, AB, BA)["pairwise"]
    for key in ("simmerge", "oracle", "best_fixed", "linear"):
        assert both["utility"][key] == pytest.approx((one["utility"][key] + other["utility"][key]) / 2)
    assert [d["chosen_on"] for d in both["directions"]] == ["A", "B"]
    assert both["test_pairs"] == one["test_pairs"]


def test_the_report_is_the_same_twice_and_another_seed_moves_only_intervals(root: FrameRoot, world: World) -> None:
    assert made(root, world, AB) == made(root, world, AB)
    other = analysis.report(root, world.catalog, selectors=selectors(AB), rivals=(), draws=300, seed=1)
    first = made(root, world, AB)
    assert other["pairwise"]["utility"] == first["pairwise"]["utility"]
    assert other["pairwise"]["headroom_captured"]["ci95"] != first["pairwise"]["headroom_captured"]["ci95"]


def test_rows_of_a_replaced_checkpoint_are_left_out(root: FrameRoot, world: World) -> None:
    prints = [{"checkpoint": c, "fingerprint": f"f-{c}"} for c in (*DOMAINS, "base")]
    stale = world.labels.filter((pl.col("a") == "code-1") | (pl.col("b") == "code-1")).with_columns(
        utility=pl.lit(9.0),
        a_fingerprint=pl.when(pl.col("a") == "code-1").then(pl.lit("old")).otherwise("a_fingerprint"),
        b_fingerprint=pl.when(pl.col("b") == "code-1").then(pl.lit("old")).otherwise("b_fingerprint"),
    )
    clean = made(root, world, AB)
    root.frames[CHECKPOINTS.name] = pl.DataFrame(prints)
    root.frames["merge_labels"] = pl.concat([stale.select(world.labels.columns), world.labels])
    assert made(root, world, AB)["pairwise"] == clean["pairwise"]


def test_merge_requests_show_predicted_beside_executed(root: FrameRoot, world: World) -> None:
    root.frames["merge_plans"] = pl.DataFrame(
        {
            "merge_request": ["mine", "mine"],
            "rank": [2, 1],
            "task": ["math"] * 2,
            "k": [2] * 2,
            "order": [["code-1", "math-2"], ["code-1", "math-1"]],
            "actions": [["ties@0.5"], ["slerp@0.5"]],
            "predicted_utility": [0.6, 0.7],
            "uncertainty": [0.1, 0.05],
            "search": ["exhaustive"] * 2,
        }
    )
    outcomes = [
        benchmark_row(u, s, "math", merge_request="mine", role=role, model=model, predicted_utility=None)
        for role, model, u in (("simmerge", "slerp@0.5(code-1, math-1)", 0.66), ("parent", "code-1", 0.3))
        for s in "AB"
    ]
    root.frames["merge_outcomes"] = pl.DataFrame(outcomes)
    report = made(root, world, AB)
    request = report["merge_requests"]["mine"]
    assert (request["plan"], request["predicted_utility"]) == ("slerp@0.5(code-1, math-1)", 0.7)
    assert request["models"][0] == {
        "role": "simmerge",
        "model": "slerp@0.5(code-1, math-1)",
        "utility": {"A": 0.66, "B": 0.66},
    }
    text = analysis.render(report).markdown
    assert "### Merge request mine" in text
    assert "0.700 ± 0.050" in text


def test_text_says_how_every_figure_came_about(root: FrameRoot, world: World) -> None:
    report = json.loads(json.dumps(made(root, world, AB)))
    rendered = analysis.render(report)
    assert "chosen on items A, scored on B" in rendered.markdown
    value = report["pairwise"]["gap_closed"]["simmerge"]
    assert f"| **{value:.1f}** |" in rendered.markdown
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rendered.terminal)
    assert "expert last, best fixed operator" in console.export_text()


def test_without_a_selector_the_remedy_is_named(root: FrameRoot, world: World) -> None:
    with pytest.raises(SelectionError, match="materialize the asset selector"):
        analysis.report(root, world.catalog)


class Recorder:
    """A model that notes what it was trained on."""

    def __init__(self) -> None:
        self.seen: list[set[str]] = []

    def __call__(self, rows: Any) -> TableSelector:
        known = rows.of_split("train", "validation").meta
        self.seen.append(set(known["a"]) | set(known["b"]))
        return TableSelector(PAPER)


def test_held_out_experts_are_in_no_training_row(root: FrameRoot, world: World) -> None:
    from simmerge_core.analysis.scores import counted_metrics
    from simmerge_core.analysis.units import build_units

    counted = counted_metrics(world.catalog)
    units = build_units(
        world.labels,
        world.standalone,
        actions=PAPER,
        domains=DOMAINS,
        base="base",
        counted=counted,
        item_sets=("A", "B"),
        target="expert_task",
    )
    rows = rivals.rows_of(world.features, world.labels, actions=PAPER, counted=counted, along=[AB])
    want = {
        (t, a, b): [
            world.utility.get((t, a, b, o, "A"), world.utility.get((t, b, a, str(parse_action(o).mirrored()), "A")))
            for o in PAPER
        ]
        for t, a, b in rows[AB].meta.select("task", "a", "b").iter_rows()
    }
    for key, utilities in zip(rows[AB].meta.select("task", "a", "b").iter_rows(), rows[AB].utilities, strict=True):
        assert utilities.tolist() == pytest.approx(want[key])  # A items only
    recorder = Recorder()
    figures = rivals.held_out_experts(units, world.features, rows, {"simmerge": recorder}, folds=3, draws=100)
    for fold, seen in zip(figures["folds"], recorder.seen, strict=True):
        assert not set(fold) & seen
    assert sorted(c for fold in figures["folds"] for c in fold) == sorted(DOMAINS)
    scored = sum(
        len({a, b} & set(fold)) > 0 for (a, b), fold in product(zip(units.a, units.b, strict=True), figures["folds"])
    )
    assert figures["rows"] == scored


def test_headlines_put_the_plan_beside_its_rivals_on_the_honest_items() -> None:
    def figures(ours: float) -> dict[str, Any]:
        return {"simmerge": ours, "best_fixed": 1.0, "random": 2.0, "oracle": 3.0}

    section = {
        "target": "expert_task",
        "test_pairs": 7,
        "directions": [{"chosen_on": "A", "scored_on": "B", "honest": True}],
        "gap_closed": figures(50.0),
        "utility": figures(0.5),
        "accuracies": {},
        "regret": {},
        "winner_agreement": 0.5,
        "tie_share": 0.1,
        "per_task": {},
    }
    models = [
        ("simmerge", "plan", {"A": 0.1, "B": 0.61}),
        ("parent", "x", {"A": 0.9, "B": 0.5}),
        ("parent", "y", {"A": 0.8, "B": 0.55}),
    ]
    request = {
        "task": "math",
        "k": 2,
        "plan": "plan",
        "predicted_utility": 0.6,
        "uncertainty": 0.02,
        "search": "beam",
        "models": [{"role": r, "model": m, "utility": u} for r, m, u in models],
    }
    rendered = analysis.render({"pairwise": section, "merge_requests": {"mine": request}})
    executed, comparison = rendered.headlines
    assert executed.rows == (("mine", "math", "plan", "0.600 ± 0.020", "0.610", "–", "–", "0.550", "–"),)
    assert comparison.rows[0][1:] == ("7", "50.0", "1.0", "2.0", "3.0")


def test_a_catalog_too_small_for_held_out_experts_still_has_its_report(
    root: FrameRoot, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise SelectionError("Only 5 labelled pairs are outside the test split.")

    monkeypatch.setattr(reporting, "held_out_experts", refuse)
    report = analysis.report(root, world.catalog, selectors=selectors(AB), rivals=(), held_out_folds=3, draws=50)
    assert report["held_out_experts"] == {"not_computed": "Only 5 labelled pairs are outside the test split."}
    assert "held-out experts" not in analysis.render(report).markdown


def test_rivals_stand_beside_the_selector(root: FrameRoot, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on: list[tuple[str, int]] = []

    def fake(names: tuple[str, ...], *, seed: int = 0) -> dict[str, Any]:
        def train(rows: Any) -> TableSelector:
            trained_on.append((names[0], len(rows.of_split("test"))))
            return TableSelector(tuple(map(str, rows.actions)))

        return dict.fromkeys(names, train)

    monkeypatch.setattr(reporting, "models", fake)
    report = analysis.report(root, world.catalog, selectors=selectors(AB), rivals=("ridge",), draws=50)
    assert [name for name, _ in trained_on] == ["ridge", "ridge"]  # once per action set
    for pairwise in (report["pairwise"], report["extended"]["pairwise"]):
        # The stand-in reads the true utilities, which spread four times as wide as the noise of the labels.
        assert pairwise["utility"]["ridge"] > pairwise["utility"]["random"] + 0.03
        assert set(pairwise["captured"]) == {"simmerge", "ridge"}
    assert "ridge regression" in analysis.render(report).markdown


def test_only_item_sets_that_every_benchmark_has_are_compared(world: World) -> None:
    from simmerge_core.analysis.scores import item_sets_of

    assert item_sets_of(world.catalog) == ("A", "B")
    task = world.catalog.tasks[0]
    wider = task.benchmarks[0].model_copy(update={"item_sets": {"A": "0::3", "B": "1::3", "C": "2::3"}})
    tasks = (task.model_copy(update={"benchmarks": (wider,)}), *world.catalog.tasks[1:])
    assert item_sets_of(world.catalog.model_copy(update={"tasks": tasks})) == ("A", "B")
