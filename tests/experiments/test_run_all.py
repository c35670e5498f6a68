"""Experiments as a whole: run once, kept, resumed, published; nothing half-written, nothing stale."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from experiments_world import QUICK, WorldData, make_data

from simmerge_core.errors import SelectionError
from simmerge_core.experiments import bars as bars_module
from simmerge_core.experiments import comparison, curves, held_out
from simmerge_core.experiments import page as page_module
from simmerge_core.experiments.bars import Bar, bars
from simmerge_core.experiments.experiment import Catalogs, Experiment, run_all
from simmerge_core.experiments.flat import flat_rows
from simmerge_core.experiments.page import bars_table, page
from simmerge_core.experiments.publishing import publish
from simmerge_core.experiments.registry import EXPERIMENTS, JOINT_DRAWINGS, named
from simmerge_core.experiments.result import Result, ResultStore
from simmerge_core.experiments.training import train_into


@pytest.fixture(scope="module")
def results(data: WorldData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Every experiment on the synthetic catalogs, rivals reduced to those that train at once."""
    larger = make_data(tmp_path_factory.mktemp("larger"), seed=1, parameters=6000, multiway={3: 2, 4: 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "RIVALS", ("ridge", "norm_ratio", "nearest_neighbour"))
        patch.setattr(comparison.rivals_for, "__defaults__", (("ridge", "norm_ratio", "nearest_neighbour"),))
        patch.setattr(held_out, "QUICK", ("ridge",))
        patch.setattr(curves, "features_of_first", lambda data, count: data.features)
        store = ResultStore(tmp_path_factory.mktemp("results"))
        return run_all(EXPERIMENTS, Catalogs(data, larger), store)


def test_every_place_of_the_page_is_filled(results: dict[str, Result], data: WorldData, tmp_path: Path) -> None:
    place = publish(EXPERIMENTS, results, bars(results, data.protocol), tmp_path, joint=JOINT_DRAWINGS)
    text = place.read_text("utf-8")
    assert "{{" not in text
    assert "*(not" not in text
    for experiment in EXPERIMENTS:
        rows = pl.read_parquet(tmp_path / "results" / "rows" / f"{experiment.name}.parquet")
        assert rows.height > 0
    figures = json.loads((tmp_path / "results" / "figures.json").read_text("utf-8"))
    assert set(figures) == {e.name for e in EXPERIMENTS}
    for link in [part.partition(")")[0] for part in text.split("](")[1:]]:
        if not link.startswith(("http", "#")) and link.startswith("results/"):
            assert (tmp_path / link).exists(), link


def test_every_bar_finds_its_figure(results: dict[str, Result], data: WorldData) -> None:
    assert [bar.name for bar in bars(results, data.protocol) if bar.figure is None] == []
    assert set(data.protocol.bars) <= {key for _, key, *_ in bars_module._PLACES if key}


def test_raw_rows_give_the_figures_again(results: dict[str, Result]) -> None:
    rows, section = results["pairs"].rows, results["pairs"].figures["paper"]
    mine = rows.filter((pl.col("method") == "simmerge") & (pl.col("actions") == "paper"))
    assert mine["utility"].mean() == pytest.approx(section["utility"]["simmerge"], abs=1e-6)
    plans = results["plans"].rows.filter((pl.col("k") == 3) & (pl.col("actions") == "paper"))
    for method in ("simmerge", "random_order", "oracle"):
        found = plans.filter(pl.col("method") == method)["utility"].mean()
        assert found == pytest.approx(results["plans"].figures["paper"]["3"][method], abs=1e-6)


def test_flat_rows_name_split_k_and_protocol(results: dict[str, Result], data: WorldData) -> None:
    rows = flat_rows(results, data)
    assert {row["split"] for row in rows} == {
        *("pairs", "held_out_experts", "held_out_tasks", "configurations", "larger_models")
    }
    assert {row["k"] for row in rows} == {2, 3, 4}
    assert all(row["protocol"]["honest"] and row["protocol"]["directions"] == ["A->B", "B->A"] for row in rows)
    json.dumps(rows, allow_nan=False)


def _counting(calls: list[str], name: str, *, fails: bool = False) -> Experiment:
    def run(catalogs: Catalogs, progress: Any) -> Result:
        calls.append(name)
        if fails:
            raise RuntimeError("killed")
        return Result(pl.DataFrame({"x": [1]}), {"x": 1.0})

    return Experiment(name, "?", run, lambda result: {"x": str(result.figures["x"])})


def test_a_killed_run_goes_on_where_it_was(data: WorldData, tmp_path: Path) -> None:
    calls: list[str] = []
    store = ResultStore(tmp_path)
    with pytest.raises(RuntimeError):
        run_all([_counting(calls, "one"), _counting(calls, "two", fails=True)], Catalogs(data), store)
    results = run_all([_counting(calls, "one"), _counting(calls, "two")], Catalogs(data), store)
    assert calls == ["one", "two", "two"]
    assert set(results) == {"one", "two"}
    assert results["one"].rows.equals(pl.DataFrame({"x": [1]}))


def test_other_tables_make_a_result_stale(data: WorldData, tmp_path: Path) -> None:
    calls: list[str] = []
    store = ResultStore(tmp_path)
    run_all([_counting(calls, "one")], Catalogs(data), store)
    turned = replace(data, labels=data.labels.reverse())
    run_all([_counting(calls, "one")], Catalogs(turned), store)
    assert calls == ["one"]  # the order of rows says nothing
    changed = data.labels.with_columns(pl.col("utility") + pl.when(pl.int_range(pl.len()) == 3).then(0.1).otherwise(0))
    run_all([_counting(calls, "one")], Catalogs(replace(data, labels=changed)), store)
    assert calls == ["one", "one"]


def test_a_damaged_result_is_computed_again(data: WorldData, tmp_path: Path) -> None:
    calls: list[str] = []
    store = ResultStore(tmp_path)
    run_all([_counting(calls, "one")], Catalogs(data), store)
    (tmp_path / "one" / "rows.parquet").write_bytes(b"PAR1 not")
    run_all([_counting(calls, "one")], Catalogs(data), store)
    assert calls == ["one", "one"]


def test_without_larger_models_the_page_says_so(
    data: WorldData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    larger = replace(_counting(calls, "two"), needs_larger=True)
    experiments = [_counting(calls, "one"), larger]
    results = run_all(experiments, Catalogs(data), ResultStore(tmp_path / "store"))
    assert set(results) == {"one"}
    template = tmp_path / "page.in"
    template.write_text("a {{one:x}} b {{two:x}} c {{figure:none}}", encoding="utf-8")
    monkeypatch.setattr(page_module, "TEMPLATE", template)
    text = page(experiments, results, [], {})
    assert text == "a 1.0 b *(not run: there was no catalog of larger models)* c *(not drawn)*"
    template.write_text("{{one:absent}}", encoding="utf-8")
    with pytest.raises(SelectionError, match="one:absent"):
        page(experiments, results, [], {})


def test_unknown_experiments_are_refused_by_name() -> None:
    assert [e.name for e in named(["held_out", "pairs"])] == ["pairs", "held_out"]
    assert named([]) == EXPERIMENTS
    with pytest.raises(SelectionError, match="no experiment 'pear': choose among pairs"):
        named(["pear"])


def test_transfer_wants_a_larger_model(data: WorldData) -> None:
    transfer = next(e for e in EXPERIMENTS if e.name == "transfer")
    with pytest.raises(SelectionError, match=r"1\.0 times the parameters"):
        transfer.run(Catalogs(data, data), lambda message, fraction: None)


def test_bars_are_met_only_with_what_they_ask_for() -> None:
    figure = {"value": 0.9, "ci95": [-0.1, 1.2]}
    assert Bar("x", 0.85, figure).met is True
    assert Bar("x", 0.85, figure, above_zero=True).met is False
    assert Bar("x", 0.95, figure).met is False
    assert Bar("x", 0.85, None).met is None
    assert Bar("x", 0.85, {"value": None, "ci95": [None, None]}).met is None
    table = bars_table([Bar("x", 0.85, figure), Bar("y", 15, figure, "points"), Bar("z", 0.0, None, "utility")])
    assert "| x | ≥ 0.85 (of the oracle's gain) | +0.90 [−0.10, 1.20] | met |" in table
    assert "| y | ≥ 15 (points) | +0.9 [−0.1, 1.2] | **not met** |" in table
    assert "| z | above 0 (utility) | – | not run |" in table


def test_selectors_are_the_same_bytes_from_any_number_of_processes(data: WorldData, tmp_path: Path) -> None:
    units = data.units("paper", "expert_task")
    rows = [data.rows(units.actions, d) for d in data.along]
    for name, workers in (("one", 1), ("two", 2)):
        jobs = [(tmp_path / name / str(i), r, QUICK, 0) for i, r in enumerate(rows)]
        train_into(jobs, workers=workers, progress=lambda message, fraction: None)
    for i in range(len(rows)):
        files = [tmp_path / name / str(i) / "selector.safetensors" for name in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_selectors_are_trained_once(data: WorldData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = make_data(tmp_path)
    rows = fresh.rows(fresh.units("paper", "expert_task").actions, fresh.along[0])
    fresh.train_ahead([(rows, None), (rows, QUICK)])
    kept = list((tmp_path / "experiments" / "models").iterdir())
    assert len(kept) == 1  # the settings are the same

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("simmerge_core.selector.fitting.train", refuse)
    monkeypatch.setattr("simmerge_core.selector.train", refuse, raising=False)
    again = make_data(tmp_path)
    assert np.isfinite(again.selector(rows).predict(again.features.head(3)).utilities).all()


def test_a_damaged_selector_is_trained_again(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    rows = data.rows(data.units("paper", "expert_task").actions, data.along[0])
    key = data.selector(rows).key
    file = next((tmp_path / "experiments" / "models").iterdir()) / "config.json"
    file.write_text("{", encoding="utf-8")
    assert make_data(tmp_path).selector(rows).key == key
