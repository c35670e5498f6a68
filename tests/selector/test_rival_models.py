"""Nearest neighbours, extra trees and the norm-ratio rule against scikit-learn, NumPy and the rule in words."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from selector_world import World, make_world
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import parse_action
from simmerge_core.selector import MODELS, SelectorConfig, TrainingRows, training_rows
from simmerge_core.selector.baselines import ExtraTrees, NearestNeighbour, NormRatio
from simmerge_core.selector.baselines.nearest import _nearest
from simmerge_core.selector.threads import one_blas_thread

ACTIONS = ("linear@0.5", "slerp@0.5", "ties@0.5")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(per_domain=5)


@pytest.fixture(scope="module")
def rows(world: World) -> TrainingRows:
    return training_rows(world.features, world.labels, actions=world.actions)


@pytest.fixture(scope="module")
def trees(rows: TrainingRows) -> ExtraTrees:
    return ExtraTrees.train(rows, seed=3)


def _inputs(rows: TrainingRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised features with the task code of every row, which rows are labelled, and which of these tune."""
    names = list(SelectorConfig().feature_names())
    raw = rows.features.select(names).to_numpy().astype(np.float64)
    split = rows.meta["split"].to_numpy().astype(str)
    known = np.isin(split, ["train", "validation"])
    x = np.clip(StandardScaler().fit(raw[known]).transform(raw), -5.0, 5.0)
    tasks = rows.meta["task"].to_numpy().astype(str)
    code = np.array([[float(task == name) for name in sorted(set(tasks[known]))] for task in tasks])
    return np.hstack([x, code]), known, split[known] == "validation"


def test_nearest_neighbours_are_those_of_scikit_learn(rows: TrainingRows) -> None:
    x, known, tunes = _inputs(rows)
    model = NearestNeighbour.train(rows)
    assert 0 < tunes.sum() < len(tunes)
    utilities = rows.utilities[known]

    def worth(count: int) -> float:
        peers = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(x[known][~tunes])
        total = 0.0
        for near, own in zip(peers.kneighbors(x[known][tunes])[1], utilities[tunes], strict=True):
            total += own[utilities[~tunes][near].mean(axis=0).argmax()]
        return total / tunes.sum()

    worths = {count: worth(count) for count in (1, 3, 5, 9, 15, 25, 40)}
    assert len({round(value, 9) for value in worths.values()}) > 1
    assert worths[model.neighbours] == pytest.approx(max(worths.values()))

    test = rows.of_split("test")
    peers = NearestNeighbors(n_neighbors=model.neighbours, algorithm="brute").fit(x[known])
    near = peers.kneighbors(x[(rows.meta["split"] == "test").to_numpy()])[1]
    answer = model.predict(test.features)
    np.testing.assert_allclose(answer.utilities, [utilities[row].mean(axis=0) for row in near], atol=1e-12)
    np.testing.assert_allclose(answer.uncertainty, [utilities[row].std(axis=0) for row in near], atol=1e-12)


def test_the_task_code_counts_in_the_distance(rows: TrainingRows) -> None:
    model = NearestNeighbour.train(rows)
    assert model.x.shape[1] == len(model.feature_names) + 3
    coded = NearestNeighbour.train(rows, config=SelectorConfig(encode_task=False))
    assert coded.x.shape[1] == len(coded.feature_names)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_equal_distances_keep_the_order_of_the_rows(count: int) -> None:
    rng = np.random.default_rng(0)
    known, asked = rng.integers(0, 3, size=(30, 2)).astype(float), rng.integers(0, 3, size=(12, 2)).astype(float)
    expected = [
        sorted(range(30), key=lambda j, q=query: (float(((known[j] - q) ** 2).sum()), j))[:count] for query in asked
    ]
    np.testing.assert_array_equal(_nearest(asked, known, count), expected)


def test_no_more_neighbours_than_there_are_rows_to_tune_on(rows: TrainingRows) -> None:
    """The mean of all seven rows would choose best, but no count is that large without being larger."""
    part = rows.filter(rows.pairs < 8)
    few = part.with_split(np.where(np.arange(len(part)) < 7, "train", "validation"))
    utilities = np.tile([0.6, 0.5, 0.0], (len(part), 1))
    utilities[7:] = [0.0, 1.0, 0.0]
    for odd in range(7):
        utilities[:7] = [0.6, 0.5, 0.0]
        utilities[odd] = [0.0, 3.0, 0.0]  # the row that decides a mean that it is part of
        model = NearestNeighbour.train(TrainingRows(few.features, utilities.copy(), few.meta, few.actions))
        assert model.neighbours in (1, 3, 5)


def test_extra_trees_are_those_of_scikit_learn_on_level_and_differences(rows: TrainingRows, trees: ExtraTrees) -> None:
    x, known, tunes = _inputs(rows)
    utilities = rows.utilities[known]
    level = utilities.mean(axis=1)
    difference = utilities - level[:, None]
    centre = difference.mean(axis=0)
    spread = np.sqrt(((difference - centre) ** 2).mean())
    y_level, y_difference = (level - level.mean()) / level.std(), (difference - centre) / spread

    def forest(leaf: int, count: int) -> ExtraTreesRegressor:
        return ExtraTreesRegressor(count, min_samples_leaf=leaf, max_features=0.5, random_state=3)

    errors = {}
    for leaf in (2, 3, 5, 10):
        trial = forest(leaf, 50).fit(x[known][~tunes], y_difference[~tunes])
        errors[leaf] = np.mean((trial.predict(x[known][tunes]) - y_difference[tunes]) ** 2)
    leaf = min(errors, key=lambda n: errors[n])
    found_level = forest(leaf, 200).fit(x[known], y_level).predict(x)
    found_difference = forest(leaf, 200).fit(x[known], y_difference).predict(x)
    centred = found_difference - found_difference.mean(axis=1, keepdims=True)
    expected = (level.mean() + level.std() * found_level)[:, None] + centre + spread * centred

    answer = trees.predict(rows.features)
    np.testing.assert_allclose(answer.utilities, expected, atol=1e-9)
    # Decoding puts the mean over the actions where the level's forest says it is.
    np.testing.assert_allclose(answer.utilities.mean(axis=1), level.mean() + level.std() * found_level, atol=1e-9)
    residual = (utilities - expected[known]).std(axis=0)
    np.testing.assert_allclose(answer.uncertainty, np.broadcast_to(residual, expected.shape), atol=1e-9)


def _share_of_the_gain(world: World, rows: TrainingRows, choice: np.ndarray) -> float:
    truth = np.array([world.truth(*row) for row in rows.of_split("test").meta.select("a", "b", "task").rows()])
    fixed = truth[:, rows.of_split("train").utilities.mean(axis=0).argmax()].mean()
    return float((truth[np.arange(len(truth)), choice].mean() - fixed) / (truth.max(axis=1).mean() - fixed))


def test_extra_trees_beat_the_best_fixed_action(world: World, rows: TrainingRows, trees: ExtraTrees) -> None:
    test = rows.of_split("test").features
    fixed = MODELS["best_fixed"](rows).predict(test).choice()
    assert _share_of_the_gain(world, rows, fixed) <= 0.0 + 1e-12
    assert _share_of_the_gain(world, rows, trees.predict(test).choice()) > 0.3


def test_neither_reads_a_test_label(rows: TrainingRows) -> None:
    spoiled = rows.utilities.copy()
    spoiled[(rows.meta["split"] == "test").to_numpy()] += 100.0
    other = TrainingRows(rows.features, spoiled, rows.meta, rows.actions)
    for model in (NearestNeighbour, NormRatio):
        ours, theirs = (model.train(r).predict(rows.features).utilities for r in (rows, other))
        np.testing.assert_array_equal(ours, theirs)


def test_numbers_do_not_depend_on_threads(rows: TrainingRows, trees: ExtraTrees) -> None:
    found: list[list[np.ndarray]] = []
    for threads in (1, 2, 4):
        with threadpool_limits(limits=threads):
            near = NearestNeighbour.train(rows)
            found.append([near.predict(rows.features).utilities, trees.predict(rows.features).utilities])
    for ours, theirs in pairwise(found):
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, two)
    assert trees.level.n_jobs == trees.difference.n_jobs == 1


def test_one_thread_inside_the_block_and_the_old_setting_after_it() -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        with one_blas_thread():
            inside = threads()
        after = threads()
    assert 2 in before
    assert set(inside) == {1}
    assert after == before


def _ratio_rows(ratios: list[float], utilities: np.ndarray, actions: tuple[str, ...] = ACTIONS) -> TrainingRows:
    """One pair per ratio, seen from the task's expert, which is `a`."""
    count = len(ratios)
    meta = pl.DataFrame(
        {
            "a": [f"m-{i}" for i in range(count)],
            "b": [f"c-{i}" for i in range(count)],
            "task": ["math"] * count,
            "kind": ["expert_auxiliary"] * count,
            "split": ["train", "validation"] * (count // 2) + ["train"] * (count % 2),
            "a_domain": ["math"] * count,
            "b_domain": ["code"] * count,
        }
    )
    features = meta.select("task", "a", "b", "a_domain", "b_domain").with_columns(
        pl.Series("weight_log_norm_ratio", ratios, dtype=pl.Float64)
    )
    return TrainingRows(features, utilities, meta, tuple(map(parse_action, actions)))


RATIOS = [0.03, -0.03, 0.07, -0.07, 0.15, -0.15, 0.3, -0.3, 0.01, -0.01]


def _law(ratio: float) -> list[float]:
    """Beyond a tenth, a shrunken expert wants slerp and a larger one ties; between, linear."""
    if ratio < -0.1:
        return [0.5, 0.7, 0.3]
    return [0.5, 0.3, 0.7] if ratio > 0.1 else [0.8, 0.1, 0.1]


def test_the_rule_with_its_learned_threshold() -> None:
    rows = _ratio_rows(RATIOS, np.array([_law(r) for r in RATIOS]))
    model = NormRatio.train(rows)
    assert model.threshold == 0.1
    choice = model.predict(rows.features).choice()
    assert [ACTIONS[i].partition("@")[0] for i in choice] == [
        "slerp" if r < -0.1 else "ties" if r > 0.1 else "linear" for r in RATIOS
    ]


def test_the_threshold_is_the_one_of_highest_training_utility() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        ratios = rng.normal(0.0, 0.2, size=12).tolist()
        utilities = rng.normal(size=(12, 3))
        model = NormRatio.train(_ratio_rows(ratios, utilities))
        fixed = utilities.mean(axis=0).argmax()
        worths = []
        for threshold in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, np.inf):
            taken = [1 if r < -threshold else 2 if r > threshold else fixed for r in ratios]
            worths.append((np.mean([u[i] for u, i in zip(utilities, taken, strict=True)]), -threshold))
        assert model.threshold == -max((round(worth, 12), least) for worth, least in worths)[1]


def test_where_the_rule_never_helps_the_best_fixed_action_stays() -> None:
    rows = _ratio_rows(RATIOS, np.tile([0.9, 0.1, 0.1], (len(RATIOS), 1)))
    model = NormRatio.train(rows)
    assert model.threshold == np.inf or model.threshold == 0.4
    assert set(model.predict(rows.features).choice().tolist()) == {0}
    far = rows.features.with_columns(weight_log_norm_ratio=pl.lit(2.0))
    expected = 2 if model.threshold == 0.4 else 0
    assert set(model.predict(far).choice().tolist()) == {expected}


def test_the_ratio_is_seen_from_the_expert_and_from_the_first_side_without_one() -> None:
    model = NormRatio.train(_ratio_rows(RATIOS, np.array([_law(r) for r in RATIOS])))
    larger_first = _ratio_rows([0.3], np.zeros((1, 3))).features

    def chosen(a_domain: str, b_domain: str) -> str:
        frame = larger_first.with_columns(a_domain=pl.lit(a_domain), b_domain=pl.lit(b_domain))
        return ACTIONS[int(model.predict(frame).choice()[0])]

    assert chosen("math", "code") == "ties@0.5"
    assert chosen("code", "math") == "slerp@0.5"  # the expert is second, and smaller than the first
    assert chosen("math", "math") == chosen("code", "rag") == "ties@0.5"


@pytest.mark.parametrize("actions", [("linear@0.5", "slerp@0.5"), ("slerp@0.5", "linear@0.5")])
def test_a_missing_operator_leaves_the_best_fixed_action_in_its_place(actions: tuple[str, str]) -> None:
    columns = [ACTIONS.index(action) for action in actions]
    utilities = np.array([_law(r) for r in RATIOS])[:, columns]
    model = NormRatio.train(_ratio_rows(RATIOS, utilities, actions))
    asked = _ratio_rows([0.35, -0.35], np.zeros((2, 2)), actions).features
    assert [actions[i] for i in model.predict(asked).choice()] == ["linear@0.5", "slerp@0.5"]


def test_a_rule_without_its_operators_is_refused() -> None:
    utilities = np.array([_law(r) for r in RATIOS])[:, :2]
    with pytest.raises(SelectionError, match=r"slerp@0\.5 or ties@0\.5"):
        NormRatio.train(_ratio_rows(RATIOS, utilities, ("linear@0.5", "slerp@0.3")))
