"""Units: orientation, mirroring, averaging over seeds and benchmarks, and what is left out."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from analysis_world import DOMAINS, TableSelector, World, benchmark_row, make_catalog

from simmerge_core.analysis.predictions import predict_units
from simmerge_core.analysis.scores import counted_metrics, task_scores
from simmerge_core.analysis.units import Units, build_units
from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import ACTION_SETS, parse_action

EXTENDED = tuple(map(str, ACTION_SETS["extended"]))
PAPER = tuple(map(str, ACTION_SETS["paper"]))


def units_of(
    world: World, target: str, actions: tuple[str, ...] = EXTENDED, labels: pl.DataFrame | None = None
) -> Units:
    return build_units(
        world.labels if labels is None else labels,
        world.standalone,
        actions=actions,
        domains=world.catalog.domains,
        base="base",
        counted=counted_metrics(world.catalog),
        item_sets=("A", "B"),
        target=target,  # type: ignore[arg-type]
    )


def raw(world: World, task: str, a: str, b: str, action: str, item_set: str) -> float:
    """The utility as it was written, looked up in either orientation."""
    if (task, a, b, action, item_set) in world.utility:
        return world.utility[task, a, b, action, item_set]
    return world.utility[task, b, a, str(parse_action(action).mirrored()), item_set]


def test_expert_task_units_put_the_expert_first_and_mirror_its_actions(world: World) -> None:
    units = units_of(world, "expert_task")
    assert len(units) == 54  # 27 cross-domain pairs, each on both parents' tasks
    for i in range(len(units)):
        assert DOMAINS[units.a[i]] == units.tasks[i, 0] != DOMAINS[units.b[i]]
        for s in "AB":
            want = [raw(world, units.tasks[i, 0], units.a[i], units.b[i], o, s) for o in EXTENDED]
            np.testing.assert_allclose(units.utilities[s][i, 0], want, rtol=0, atol=1e-15)
            assert units.expert[s][i, 0] == world.alone[units.a[i], units.tasks[i, 0], s]
            assert units.auxiliary[s][i, 0] == world.alone[units.b[i], units.tasks[i, 0], s]
            assert units.base[s][i, 0] == world.alone["base", units.tasks[i, 0], s]


def test_both_tasks_units_are_unordered_pairs_with_one_part_per_parent(world: World) -> None:
    units = units_of(world, "both_tasks")
    assert len(units) == 27
    for i in range(len(units)):
        a, b = units.a[i], units.b[i]
        assert a < b
        assert units.tasks[i].tolist() == [DOMAINS[a], DOMAINS[b]]
        for part, (expert, auxiliary) in enumerate([(a, b), (b, a)]):
            task = DOMAINS[expert]
            want = [raw(world, task, a, b, o, "B") for o in EXTENDED]
            np.testing.assert_allclose(units.utilities["B"][i, part], want, rtol=0, atol=1e-15)
            assert units.expert["B"][i, part] == world.alone[expert, task, "B"]
            assert units.auxiliary["B"][i, part] == world.alone[auxiliary, task, "B"]


def test_units_do_not_depend_on_the_stored_orientation(world: World) -> None:
    flipped = world.labels.with_columns(
        pl.col("b").alias("a"),
        pl.col("a").alias("b"),
        pl.col("action").map_elements(lambda o: str(parse_action(o).mirrored()), return_dtype=pl.String),
    )
    for target in ("expert_task", "both_tasks"):
        one, other = units_of(world, target), units_of(world, target, labels=flipped)
        np.testing.assert_array_equal(one.a, other.a)
        np.testing.assert_array_equal(one.utilities["A"], other.utilities["A"])


def test_a_pair_without_one_action_is_left_out_and_counted(world: World) -> None:
    a, b = "code-1", "math-1"
    thinner = world.labels.filter(
        ~(
            (pl.col("a") == a)
            & (pl.col("b") == b)
            & (pl.col("action") == "ties@0.5")
            & (pl.col("task") == "code")
            & (pl.col("item_set") == "B")
        )
    )
    units = units_of(world, "expert_task", PAPER, thinner)
    assert (len(units), units.incomplete) == (53, 1)
    both = units_of(world, "both_tasks", PAPER, thinner)
    assert (len(both), both.incomplete) == (26, 1)


def test_no_complete_pair_is_an_error_that_names_the_actions(world: World) -> None:
    with pytest.raises(SelectionError, match=r"ties@0\.5"):
        units_of(world, "expert_task", PAPER, world.labels.filter(pl.col("action") != "ties@0.5"))


def test_task_score_is_the_mean_over_benchmarks_of_means_over_seeds() -> None:
    catalog = make_catalog({"math-1": "math"})
    task = catalog.tasks[0]
    second = task.benchmarks[0].model_copy(update={"name": "other", "metrics": ("em", "acc,none")})
    catalog = catalog.model_copy(
        update={"tasks": (task.model_copy(update={"benchmarks": (task.benchmarks[0], second)}),)}
    )
    rows = [
        benchmark_row(0.2, "A", "math", checkpoint="x") | {"seed": 0},
        benchmark_row(0.2, "A", "math", checkpoint="x") | {"seed": 0},  # the same evaluation twice
        benchmark_row(0.6, "A", "math", checkpoint="x") | {"seed": 1},
        benchmark_row(1.0, "A", "math", checkpoint="x") | {"benchmark": "other", "metric": "em"},
        benchmark_row(0.0, "A", "math", checkpoint="x") | {"benchmark": "other", "metric": "acc,none"},
        benchmark_row(0.9, "A", "math", checkpoint="y"),  # lacks the second benchmark
    ]
    scores = task_scores(pl.DataFrame(rows), by=["checkpoint"], counted=counted_metrics(catalog))
    assert scores.rows() == [("math", "x", "A", pytest.approx((0.4 + 1.0) / 2))]
    with pytest.raises(SelectionError, match="'f1'"):
        counted_metrics(catalog, metric="f1")


def test_prediction_averages_both_orientations_and_both_tasks(world: World) -> None:
    units = units_of(world, "both_tasks")
    got = predict_units(TableSelector(EXTENDED), world.features, units)
    i = 5
    total = np.zeros(len(EXTENDED))
    for t in units.tasks[i]:
        row = world.features.filter((pl.col("a") == units.a[i]) & (pl.col("b") == units.b[i]) & (pl.col("task") == t))
        total += row.select(f"x_{o}" for o in EXTENDED).to_numpy()[0] / 2
    np.testing.assert_allclose(got[i], total, atol=1e-12)
    one_way = world.features.filter(pl.col("a") < pl.col("b"))
    np.testing.assert_allclose(predict_units(TableSelector(EXTENDED), one_way, units), got, atol=1e-12)


def test_prediction_errors_name_the_pair_or_the_action(world: World) -> None:
    units = units_of(world, "expert_task")
    with pytest.raises(SelectionError, match="task_arithmetic"):
        predict_units(TableSelector(PAPER), world.features, units)
    with pytest.raises(SelectionError, match="code-1, math-1 on task code"):
        gone = world.features.filter(
            ~(pl.col("a").is_in(["code-1", "math-1"]) & pl.col("b").is_in(["code-1", "math-1"]))
        )
        predict_units(TableSelector(EXTENDED), gone, units)
