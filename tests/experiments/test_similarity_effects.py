"""Similarity against success: correlations, ranks, win rates and tails against NumPy, SciPy and plain loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import polars as pl
import pytest
from experiments_world import WorldData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr

from simmerge_core.experiments import similarity_effects
from simmerge_core.experiments.data import silent
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.result import Result
from simmerge_core.experiments.similarity_effects import (
    METRICS,
    _correlations,
    _ranks,
    _tails,
    _win_rates,
)
from simmerge_core.operators.actions import parse_action
from simmerge_core.plans import Plan

OPERATORS = ("linear", "slerp", "ties")


@pytest.fixture(scope="module")
def result(data: WorldData) -> Result:
    return similarity_effects.run(Catalogs(data), silent)


def _metric_columns(data: WorldData) -> dict[tuple[str, str, str], list[float]]:
    columns = list(METRICS.values())
    return {
        (row["task"], row["a"], row["b"]): [row[column] for column in columns]
        for row in data.features.iter_rows(named=True)
    }


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(3, 30))
def test_unweighted_correlations_are_those_of_numpy_and_scipy(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = 0.9 + 0.05 * rng.normal(size=rows), rng.normal(size=(rows, 3))
    found = _correlations(x, y, np.ones((4, rows)))
    for column, values in enumerate(y.T):
        assert found[column]["value"] == pytest.approx(np.corrcoef(x, values)[0, 1], abs=1e-9)
        assert found[column]["value"] == pytest.approx(pearsonr(x, values).statistic, abs=1e-9)
        assert found[column]["ci95"] == pytest.approx([found[column]["value"]] * 2, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_correlations_of_ranks_are_spearman_also_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, size=25) / 7.0, rng.integers(0, 4, size=(25, 2)) / 3.0
    found = _correlations(_ranks(x), np.apply_along_axis(_ranks, 0, y), np.ones((1, 25)))
    for column, values in enumerate(y.T):
        assert found[column]["value"] == pytest.approx(spearmanr(x, values).statistic, abs=1e-9)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20))
def test_tied_values_share_their_mean_rank(values: list[int]) -> None:
    array = np.array(values, dtype=np.float64)
    np.testing.assert_array_equal(_ranks(array), rankdata(array, method="average"))


def test_a_draw_is_the_correlation_of_repeated_rows_and_undefined_draws_are_left_out() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=9), rng.normal(size=(9, 2))
    weights = rng.multinomial(9, np.full(9, 1 / 9), size=60).astype(np.float64)
    weights[7] = np.eye(9)[2] * 9  # a single row, however often, has no correlation
    found = _correlations(x, y, weights)
    for column in range(2):
        drawn = []
        for number, draw in enumerate(weights):
            if number != 7:
                index = np.repeat(np.arange(9), draw.astype(int))
                drawn.append(np.corrcoef(x[index], y[index, column])[0, 1])
        assert found[column]["ci95"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-9)
        assert found[column]["value"] == pytest.approx(np.corrcoef(x, y[:, column])[0, 1], abs=1e-9)


def _rates_by_loops(x: np.ndarray, scores: np.ndarray) -> list[list[float]]:
    """Bins of equal mass, the first ones larger by one; a row's point is split among its tied winners."""
    order = sorted(range(len(x)), key=lambda i: (x[i], i))
    bins = min(5, len(order))
    sizes = [len(order) // bins + (number < len(order) % bins) for number in range(bins)]
    rates, start = [], 0
    for size in sizes:
        points = [0.0] * scores.shape[1]
        for i in order[start : start + size]:
            winners = [j for j, score in enumerate(scores[i]) if score == max(scores[i])]
            for j in winners:
                points[j] += 1.0 / len(winners)
        rates.append([p / size for p in points])
        start += size
    return rates


@given(st.integers(0, 2**31), st.integers(1, 23))
def test_win_rates_and_tails_against_loops_with_ties(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    x, scores = rng.integers(0, 5, size=rows) / 5.0, rng.integers(0, 3, size=(rows, 3)) / 2.0
    expected = _rates_by_loops(x, scores)
    np.testing.assert_allclose(_win_rates(x, scores), expected, atol=1e-12)
    tails = [top - bottom for top, bottom in zip(expected[-1], expected[0], strict=True)]
    np.testing.assert_allclose(_tails(x, scores), tails, atol=1e-12)


def test_a_bin_by_hand() -> None:
    x = np.array([5.0, 1.0, 2.0, 3.0, 4.0])
    scores = np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.5, 0.5, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    third = 1.0 / 3.0
    assert _win_rates(x, scores) == [[0.5, 0.5, 0.0], [third] * 3, [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert _tails(x, scores) == [-0.5, 0.5, 0.0]


def test_operators_are_compared_on_the_same_configurations(result: Result) -> None:
    about = ["setting", "task", "expert", "auxiliaries"]
    asked: dict[tuple[Any, ...], list[str]] = {}
    similar: dict[tuple[Any, ...], set[tuple[float, ...]]] = {}
    for row in result.rows.iter_rows(named=True):
        key = tuple(row[name] for name in about)
        asked.setdefault(key, []).append(row["operator"])
        similar.setdefault(key, set()).add(tuple(row[name] for name in METRICS))
    assert {tuple(sorted(operators)) for operators in asked.values()} == {OPERATORS}
    assert all(len(values) == 1 for values in similar.values())
    for setting, figures in result.figures.items():
        assert figures["rows"] == sum(key[0] == setting for key in asked)
        assert sorted(figures["operators"]) == list(OPERATORS)


def test_a_configuration_that_lacks_one_operator_in_one_order_is_left_out(
    data: WorldData, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = similarity_effects.executed
    cut: list[tuple[str, str]] = []

    def lacking(*arguments: Any, **options: Any) -> list[Any]:
        found = real(*arguments, **options)
        first = next(c for c in found if c.k == 3)
        gone = next(key for key in sorted(first.utilities) if set(key[1]) == {"ties@0.5"})
        cut.append((first.expert, "+".join(first.auxiliaries)))
        kept = {key: value for key, value in first.utilities.items() if key != gone}
        return [replace(first, utilities=kept) if c is first else c for c in found]

    monkeypatch.setattr(similarity_effects, "executed", lacking)
    fewer = similarity_effects.run(Catalogs(data), silent)
    expert, others = cut[0]
    here = (pl.col("setting") == "TRIPLE") & (pl.col("expert") == expert) & (pl.col("auxiliaries") == others)
    assert result.rows.filter(here).height == 3
    assert fewer.rows.filter(here).is_empty()
    assert fewer.rows.equals(result.rows.filter(~here))


@pytest.fixture(scope="module")
def labelled(data: WorldData) -> dict[tuple[str, str, str], dict[str, float]]:
    """By (task, expert, auxiliary), in order: each operator's mean over item sets, straight from the label rows."""
    domains = data.catalog.domains
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in data.labels.iter_rows(named=True):
        a, b, task = row["a"], row["b"], row["task"]
        on_one_side = domains[a] != domains[b] and task in (domains[a], domains[b])
        if row["metric"] == "acc,none" and row["action"] in {f"{o}@0.5" for o in OPERATORS} and on_one_side:
            pair = (task, a, b) if domains[a] == task else (task, b, a)
            values.setdefault(pair, {}).setdefault(row["operator"], []).append(row["utility"])
    assert all(len(found) == 2 for by in values.values() for found in by.values())
    return {
        pair: {operator: float(np.mean(found)) for operator, found in values[pair].items()} for pair in sorted(values)
    }


def test_pairs_take_every_expert_with_its_auxiliary_and_both_item_sets(
    data: WorldData, result: Result, labelled: dict[tuple[str, str, str], dict[str, float]]
) -> None:
    known = _metric_columns(data)
    rows = result.rows.filter(pl.col("setting") == "PAIR")
    assert rows.height == 3 * len(labelled)
    for row in rows.iter_rows(named=True):
        expected = labelled[row["task"], row["expert"], row["auxiliaries"]][row["operator"]]
        assert row["utility"] == pytest.approx(expected, abs=1e-6)

    section = result.figures["PAIR"]
    assert section["rows"] == len(labelled)
    scores = np.array([[by[o] for o in section["operators"]] for by in labelled.values()])
    relative = scores - scores.mean(axis=1, keepdims=True)
    for place, name in enumerate(METRICS):
        x, found = np.array([known[pair][place] for pair in labelled]), section["metrics"][name]
        for column in range(3):
            assert found["pearson"][column]["value"] == pytest.approx(np.corrcoef(x, relative[:, column])[0, 1])
            assert found["spearman"][column]["value"] == pytest.approx(spearmanr(x, relative[:, column]).statistic)
        np.testing.assert_allclose(found["win_rates"], _rates_by_loops(x, scores))
        first, *_, last = found["win_rates"]
        assert found["tails"] == pytest.approx([top - bottom for top, bottom in zip(last, first, strict=True)])


def test_intervals_resample_experts(
    data: WorldData, result: Result, labelled: dict[tuple[str, str, str], dict[str, float]]
) -> None:
    experts = [expert for _, expert, _ in labelled]
    names = sorted(set(experts))
    drawn = np.random.default_rng(data.protocol.noise.seed).multinomial(
        len(names), [1.0 / len(names)] * len(names), size=data.protocol.noise.draws
    )
    y = np.array([by["linear"] - np.mean(list(by.values())) for by in labelled.values()])
    known, place = _metric_columns(data), list(METRICS).index("weight cosine")
    x = np.array([known[pair][place] for pair in labelled])
    found = []
    for counts in drawn:
        times = [int(counts[names.index(expert)]) for expert in experts]
        index = np.repeat(np.arange(len(experts)), times)
        found.append(np.corrcoef(x[index], y[index])[0, 1])
    section = result.figures["PAIR"]
    interval = section["metrics"]["weight cosine"]["pearson"][section["operators"].index("linear")]["ci95"]
    np.testing.assert_allclose(interval, np.quantile(found, [0.025, 0.975]), atol=1e-9)


def test_longer_plans_are_means_over_all_orders_and_over_the_experts_pairs(data: WorldData, result: Result) -> None:
    known = _metric_columns(data)
    rows = result.rows.filter(pl.col("setting").is_in(["TRIPLE", "QUAD"]))
    assert set(rows["setting"]) == {"TRIPLE", "QUAD"}
    for row in rows.iter_rows(named=True):
        task, expert, others = row["task"], row["expert"], row["auxiliaries"].split("+")
        assert len(others) == {"TRIPLE": 2, "QUAD": 3}[row["setting"]]
        step = parse_action(f"{row['operator']}@0.5")
        # At equal weights the first two are interchangeable: each merge is there under one of its two orders.
        orders = [o for o in permutations((expert, *others)) if o[0] < o[1]]
        scored = data.execute([(Plan(o, (step,) * len(others)), task) for o in orders])
        expected = scored.filter(pl.col("metric") == "acc,none")["utility"].mean()
        assert row["utility"] == pytest.approx(expected, abs=1e-6)
        for place, name in enumerate(METRICS):
            similar = np.mean([known[task, expert, other][place] for other in others])
            assert row[name] == pytest.approx(similar, rel=1e-5)
