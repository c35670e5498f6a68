"""Intervals of plans, what cannot be told apart, and what settles it, against plain arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest
from selector_world import World

from simmerge_core.errors import SelectionError
from simmerge_core.planning import search, settle, target_of
from simmerge_core.planning.settling import LEAST_DIFFERENCE, items_to_show, shown_by
from simmerge_core.selector import MODELS, LabelNoise, Selector, training_rows
from simmerge_core.tables import MERGE_PLANS

INTERVALS = ("low", "high", "difference_low", "difference_high", "distinguishable")


def _members(world: World, selector: Selector, order: list[str], action: str, task: str) -> np.ndarray:
    """(members,) predictions for a plan of two, the expert shown first."""
    a, b = order
    turn = world.domains[b] == task and world.domains[a] != task
    text = next(str(x.mirrored() if turn else x) for x in selector.actions if str(x) == action)
    a, b = (b, a) if turn else (a, b)
    row = world.features.filter((pl.col("a") == a) & (pl.col("b") == b) & (pl.col("task") == task))
    members = selector.predict(row).members
    assert members is not None
    return members[:, 0, [str(x) for x in selector.actions].index(text)]


def _sharp(selector: Selector) -> Selector:
    """The same selector, were its errors half as large: some plans can be told apart, some cannot."""
    known = selector.calibration
    differences = {kind: replace(band, quantile=0.5 * band.quantile) for kind, band in known.differences.items()}
    return replace(selector, calibration=replace(known, differences=differences))


def test_two_way_plans_on_one_task(plan_world: World, plan_selector: Selector) -> None:
    plan_selector = _sharp(plan_selector)
    found = search(plan_selector, plan_world.features, sorted(plan_world.domains), "math", k=2, top=30)
    calibration = plan_selector.calibration
    first = found.row(0, named=True)
    ours = _members(plan_world, plan_selector, first["order"], first["actions"][0], "math")
    kinds = set()
    for row in found.iter_rows(named=True):
        these = _members(plan_world, plan_selector, row["order"], row["actions"][0], "math")
        half = calibration.chosen.quantile * math.hypot(calibration.chosen.floor, float(these.std()))
        assert row["low"] == pytest.approx(row["predicted_utility"] - half, abs=1e-9)
        assert row["high"] == pytest.approx(row["predicted_utility"] + half, abs=1e-9)
        if row["rank"] == 1:
            assert (row["difference_low"], row["difference_high"], row["distinguishable"]) == (0.0, 0.0, False)
            continue
        kind = "shared_checkpoint" if set(row["order"]) & set(first["order"]) else "no_shared_checkpoint"
        band = calibration.differences[kind]
        half = band.quantile * math.hypot(band.floor, float((ours - these).std()))
        gap = first["predicted_utility"] - row["predicted_utility"]
        assert row["difference_low"] == pytest.approx(gap - half, abs=1e-9)
        assert row["difference_high"] == pytest.approx(gap + half, abs=1e-9)
        assert row["distinguishable"] == (gap > half)
        kinds.add(kind)
    assert kinds == {"shared_checkpoint", "no_shared_checkpoint"}
    assert found["distinguishable"][1:].any()
    assert not found["distinguishable"][1:].all()


@pytest.mark.parametrize("combine", ["mean", "min"])
def test_several_tasks_are_the_bounds_of_the_single_ones(
    plan_world: World, plan_selector: Selector, combine: str
) -> None:
    weights = [3.0, 1.0] if combine == "mean" else None
    arguments = {"k": 2, "top": 12}
    found = search(
        plan_selector, plan_world.features, sorted(plan_world.domains), ["math", "code"], combine=combine,
        weights=weights, **arguments,
    )  # fmt: skip
    band = plan_selector.calibration.chosen
    for row in found.iter_rows(named=True):
        each = [_members(plan_world, plan_selector, row["order"], row["actions"][0], t) for t in ("math", "code")]
        value = [float(m.mean()) for m in each]
        half = [band.quantile * math.hypot(band.floor, float(m.std())) for m in each]
        low, high = ([v + s * h for v, h in zip(value, half, strict=True)] for s in (-1, 1))
        expected = (
            (0.75 * low[0] + 0.25 * low[1], 0.75 * high[0] + 0.25 * high[1])
            if combine == "mean"
            else (min(low), min(high))
        )
        assert (row["low"], row["high"]) == pytest.approx(expected, abs=1e-9)
        gap = found["predicted_utility"][0] - row["predicted_utility"]
        assert row["difference_low"] - 1e-9 <= gap <= row["difference_high"] + 1e-9
        if combine == "min":
            assert row["difference_high"] <= found["high"][0] - row["low"] + 1e-9


@pytest.mark.parametrize("aggregate", ["last", "mean", "sum"])
def test_longer_plans_have_intervals_around_their_utility(
    plan_world: World, plan_selector: Selector, aggregate: str
) -> None:
    found = search(
        plan_selector, plan_world.features, sorted(plan_world.domains), "code", k=3, top=20, aggregate=aggregate
    )
    middle = (found["low"] + found["high"]) / 2
    np.testing.assert_allclose(middle, found["predicted_utility"], atol=1e-9)
    gap = found["predicted_utility"][0] - found["predicted_utility"]
    np.testing.assert_allclose((found["difference_low"] + found["difference_high"])[1:] / 2, gap[1:], atol=1e-9)


def test_another_operator_for_the_same_pair(plan_world: World, plan_selector: Selector) -> None:
    """Joint search lists one order several times: there the errors of a pair's actions cancel."""
    ids = ["math-00", "code-00"]
    found = search(plan_selector, plan_world.features, ids, "math", k=2, operators="joint")
    assert found.height > 1
    assert len({tuple(order) for order in found["order"].to_list()}) == 1
    band = plan_selector.calibration.differences["same_pair"]
    members = [_members(plan_world, plan_selector, r["order"], r["actions"][0], "math") for r in found.to_dicts()]
    half = band.quantile * math.hypot(band.floor, float((members[0] - members[1]).std()))
    assert found["difference_high"][1] - found["difference_low"][1] == pytest.approx(2 * half, abs=1e-9)


def test_a_baseline_has_no_intervals(plan_world: World) -> None:
    rows = training_rows(plan_world.features, plan_world.labels, actions=plan_world.actions)
    found = search(MODELS["ridge"](rows), plan_world.features, sorted(plan_world.domains), "math", k=2, top=4)
    assert found.select(pl.col(INTERVALS).null_count()).row(0) == (4,) * 5
    MERGE_PLANS.validated(found.with_columns(pl.lit("k").alias("selector_key")), where="test")


def test_items_by_hand() -> None:
    z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    assert items_to_show(0.05, 0.25) == math.ceil(0.5 * (z / 0.05) ** 2) == 1570
    assert shown_by(1570, 0.25) == pytest.approx(0.05, abs=1e-4)


def test_the_items_show_the_difference_four_times_in_five() -> None:
    """Simulated exact match of two models that truly differ by 0.1."""
    rng = np.random.default_rng(0)
    n = items_to_show(0.1, 0.25)
    a, b = (rng.binomial(n, p, 20_000) / n for p in (0.55, 0.45))
    error = np.sqrt((a * (1 - a) + b * (1 - b)) / n)
    assert np.mean((a - b) / error > 1.96) == pytest.approx(0.8, abs=0.02)


def test_settlement_counts_what_is_open(plan_world: World, plan_selector: Selector) -> None:
    plan_selector = _sharp(plan_selector)
    target = target_of("math")
    found = search(plan_selector, plan_world.features, sorted(plan_world.domains), target, k=2, top=30)
    told = settle(found, plan_selector, target)
    still_open = found.filter(~pl.col("distinguishable") & (pl.col("rank") > 1))
    assert told.cannot_be_told_apart == tuple(still_open["rank"])
    assert told.plans == still_open.height + 1
    gap = found["predicted_utility"][0] - still_open["predicted_utility"].max()  # type: ignore[operator]
    assert told.difference == max(LEAST_DIFFERENCE, gap)
    variance = plan_selector.noise["math"].variance
    assert told.items_each == items_to_show(told.difference, variance)
    assert told.usual_items == 200
    assert told.resolved == pytest.approx(shown_by(200, variance))
    alone = settle(found.head(1), plan_selector, target)
    assert (alone.cannot_be_told_apart, alone.plans, alone.items_each) == ((), 0, 0)


def test_noise_of_several_tasks(plan_world: World, plan_selector: Selector) -> None:
    noisy = replace(plan_selector, noise={"math": LabelNoise(0.2, 100.0), "code": LabelNoise(0.1, 50.0)})
    ids = sorted(plan_world.domains)
    for target, variance in (
        (target_of(["math", "code"], weights=[3, 1]), 0.75**2 * 0.2 + 0.25**2 * 0.1),
        (target_of(["math", "code"], combine="min"), 0.2),
    ):
        found = search(noisy, plan_world.features, ids, target, k=2, top=30)
        told = settle(found, noisy, target)
        assert told.items_each == items_to_show(told.difference, variance)
        assert told.usual_items == 50
    silent = replace(plan_selector, noise={})
    told = settle(search(silent, plan_world.features, ids, "math", k=2), silent, target_of("math"))
    assert told.plans > 1
    assert (told.items_each, told.usual_items, told.resolved) == (None, None, None)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, math.inf], [1.0, math.nan]])
def test_weights_that_do_not_fit(weights: list[float]) -> None:
    with pytest.raises(SelectionError, match="weights"):
        target_of(["math", "code"], weights=weights)


def test_weights_are_not_for_the_minimum() -> None:
    with pytest.raises(SelectionError, match="minimum"):
        target_of(["math", "code"], combine="min", weights=[1.0, 2.0])
