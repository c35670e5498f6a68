"""The clean protocol on worlds computed by hand, and its order relations on random ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simmerge_core.analysis import pairwise
from simmerge_core.analysis.protocol import (
    Direction,
    best_fixed,
    confusion,
    directions,
    evaluate,
    macro_class_accuracy,
    tie_share,
    winner_agreement,
)
from simmerge_core.analysis.units import Units
from simmerge_core.errors import SelectionError

AB, BA = Direction("A", "B"), Direction("B", "A")
ACTIONS = ("linear@0.5", "slerp@0.5", "ties@0.5")


def make_units(
    on_a: np.ndarray,
    on_b: np.ndarray,
    split: list[str],
    *,
    tasks: list[list[str]] | None = None,
    expert: float = 0.9,
    auxiliary: float = 0.1,
    pairs: list[tuple[str, str]] | None = None,
) -> Units:
    """Units from (n, p, m) utilities; every expert and auxiliary alike."""
    n, p, m = on_a.shape
    pairs = pairs or [(f"e{i}", f"x{i}") for i in range(n)]
    return Units(
        target="expert_task" if p == 1 else "both_tasks",
        actions=ACTIONS[:m],
        a=np.array([a for a, _ in pairs]),
        b=np.array([b for _, b in pairs]),
        split=np.array(split),
        tasks=np.array(tasks or [["t", "u"][:p]] * n),
        utilities={"A": on_a, "B": on_b},
        expert={s: np.full((n, p), expert) for s in "AB"},
        auxiliary={s: np.full((n, p), auxiliary) for s in "AB"},
        base={s: np.full((n, p), 0.05) for s in "AB"},
        incomplete=0,
    )


@pytest.fixture
def by_hand() -> Units:
    """Two training pairs for which linear is best on A, and three test pairs."""
    on_a = np.array([[0.5, 0.4, 0.1], [0.5, 0.3, 0.2], [0.5, 0.6, 0.1], [0.3, 0.2, 0.3], [0.2, 0.1, 0.4]])
    on_b = np.array([[0.1, 0.9, 0.1], [0.1, 0.9, 0.1], [0.4, 0.7, 0.7], [0.5, 0.495, 0.1], [0.3, 0.6, 0.2]])
    return make_units(on_a[:, None], on_b[:, None], ["train", "validation", "test", "test", "test"])


def test_every_choice_is_made_on_one_set_and_scored_on_the_other(by_hand: Units) -> None:
    predicted = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0]], dtype=float)
    outcomes = evaluate(by_hand, {"simmerge": {AB: predicted}}, along=[AB])
    expected = {
        "simmerge": [0.7, 0.495, 0.6],
        "best_fixed": [0.4, 0.5, 0.3],  # linear, by the A items of the training pairs; by B it would be slerp
        "random": [0.6, (0.5 + 0.495 + 0.1) / 3, 1.1 / 3],
        "oracle": [0.7, 0.3, 0.2],  # slerp; linear or ties (tied on A); ties
        "oracle_same_items": [0.7, 0.5, 0.6],
        "slerp@0.5": [0.7, 0.495, 0.6],
        "parent_expert": [0.9] * 3,
        "base": [0.05] * 3,
    }
    for method, values in expected.items():
        np.testing.assert_allclose(outcomes.mean_utility(method), values, atol=1e-15, err_msg=method)
    np.testing.assert_allclose(outcomes.hit["simmerge"], [1, 0, 1])  # a tie with the best counts
    np.testing.assert_allclose(outcomes.near["simmerge"], [1, 1, 1])
    np.testing.assert_allclose(outcomes.regret["simmerge"], [0, 0.005, 0], atol=1e-15)
    np.testing.assert_allclose(outcomes.hit["oracle"], [1, 0.5, 0])
    np.testing.assert_allclose(outcomes.hit["random"], [2 / 3, 1 / 3, 1 / 3])
    assert tie_share(outcomes) == pytest.approx(1 / 3)
    assert winner_agreement(outcomes) == pytest.approx(0.5)


def test_confusion_matrix_by_hand(by_hand: Units) -> None:
    predicted = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], dtype=float)
    outcomes = evaluate(by_hand, {"simmerge": {AB: predicted}}, along=[AB])
    matrix = confusion(outcomes, "simmerge")
    # Row = truth on B. First: slerp and ties tie, linear chosen. Second: linear, slerp chosen. Third: slerp, right.
    np.testing.assert_allclose(matrix, [[0, 1, 0], [0.5, 1, 0], [0.5, 0, 0]])
    assert macro_class_accuracy(matrix) == pytest.approx((0 + 1 / 1.5 + 0) / 3)


def test_reverse_direction_doubles_the_rows_and_averages(by_hand: Units) -> None:
    predicted = np.tile([0.0, 1.0, 0.0], (5, 1))
    both = evaluate(by_hand, {"simmerge": {AB: predicted, BA: predicted}}, along=[AB, BA])
    single = [evaluate(by_hand, {"simmerge": {d: predicted}}, along=[d]) for d in (AB, BA)]
    for method in both.utility:
        want = np.mean([one.mean_utility(method).mean() for one in single])
        assert both.mean_utility(method).mean() == pytest.approx(want)
    np.testing.assert_allclose(single[1].mean_utility("best_fixed"), [0.6, 0.2, 0.1])  # slerp, by B


def test_best_fixed_per_task_falls_back_where_a_task_has_no_training_pair() -> None:
    on = np.array([[0.5, 0.4], [0.4, 0.5], [0.4, 0.6], [0.1, 0.2]])[:, None]
    units = make_units(on, on, ["train", "train", "train", "test"], tasks=[["t"], ["u"], ["u"], ["v"]])
    assert best_fixed(units, "A") == 1
    assert evaluate(units, {}, along=[AB]).mean_utility("best_fixed_per_task")[0] == 0.2
    units = make_units(on, on, ["train", "train", "train", "test"], tasks=[["t"], ["u"], ["u"], ["t"]])
    assert evaluate(units, {}, along=[AB]).mean_utility("best_fixed_per_task")[0] == 0.1


def test_both_tasks_take_the_mean_the_minimum_and_the_better_parent() -> None:
    on_a = np.array([[[0.8, 0.5], [0.2, 0.4]]] * 2)  # (2 units, 2 parts, 2 actions)
    units = make_units(on_a, on_a, ["train", "test"])
    outcomes = evaluate(units, {}, along=[AB])
    np.testing.assert_allclose(outcomes.utility["linear@0.5"], [[0.8, 0.2]])
    assert outcomes.mean_utility("best_fixed")[0] == pytest.approx(0.5)
    gap = lambda u: 100 * (u - 0.1) / 0.8  # noqa: E731
    np.testing.assert_allclose(outcomes.worst_gap["linear@0.5"], [gap(0.2)])
    np.testing.assert_allclose(outcomes.worst_gap["random"], [(gap(0.2) + gap(0.4)) / 2])
    np.testing.assert_allclose(outcomes.worst_gap["keep_better_parent"], [0.0])
    # Both parents are equally good, so each is kept half of the time: the mean over both tasks is the same.
    np.testing.assert_allclose(outcomes.mean_utility("keep_better_parent"), [0.5])
    np.testing.assert_allclose(outcomes.mean_utility("parent_expert"), [0.9])
    np.testing.assert_allclose(outcomes.mean_utility("parent_auxiliary"), [0.1])


def test_the_better_parent_is_chosen_on_the_other_items() -> None:
    on = np.full((2, 2, 2), 0.5)
    units = make_units(on, on, ["train", "test"])
    units.expert["A"][1], units.expert["B"][1] = [0.9, 0.8], [0.6, 0.95]  # a looks better on A
    outcomes = evaluate(units, {}, along=[AB])
    np.testing.assert_allclose(outcomes.utility["keep_better_parent"], [[0.6, 0.1]])


def test_a_single_item_set_is_marked_as_optimistic() -> None:
    assert directions(["all"]) == (Direction("all", "all"),)
    assert not directions(["all"])[0].honest
    assert directions(["B", "A"], both=True) == (AB, BA)


def test_no_test_or_training_pairs_is_said() -> None:
    on = np.full((2, 1, 2), 0.5)
    with pytest.raises(SelectionError, match="test split"):
        evaluate(make_units(on, on, ["train", "train"]), {}, along=[AB])
    with pytest.raises(SelectionError, match="training split"):
        evaluate(make_units(on, on, ["test", "test"]), {}, along=[AB])


utilities = st.integers(0, 2**32 - 1).map(
    # A grid of twentieths makes exact ties common.
    lambda seed: np.random.default_rng(seed).integers(0, 20, (2, 12, 1, 3)) / 20
)


@settings(max_examples=40, deadline=None)
@given(utilities, st.integers(0, 2**32 - 1))
def test_no_choice_beats_the_oracle_of_the_same_items(values: np.ndarray, seed: int) -> None:
    units = make_units(values[0], values[1], ["train"] * 6 + ["test"] * 6)
    predicted = np.random.default_rng(seed).random((12, 3))
    outcomes = evaluate(units, {"simmerge": {AB: predicted}}, along=[AB])
    ceiling = outcomes.mean_utility("oracle_same_items")
    for method in outcomes.choice:
        assert (outcomes.mean_utility(method) <= ceiling + 1e-12).all()
        assert (outcomes.regret[method] >= -1e-12).all()
        assert (outcomes.near[method] >= outcomes.hit[method]).all()
        np.testing.assert_allclose(outcomes.regret[method], ceiling - outcomes.mean_utility(method), atol=1e-12)
    assert confusion(outcomes, "simmerge").sum() == pytest.approx(6)
    assert np.trace(confusion(outcomes, "simmerge")) == pytest.approx(outcomes.hit["simmerge"].sum())


@settings(max_examples=25, deadline=None)
@given(utilities)
def test_headroom_is_one_for_the_oracle_and_zero_for_the_best_fixed_action(values: np.ndarray) -> None:
    units = make_units(values[0], values[1], ["train"] * 6 + ["test"] * 6)
    fixed = np.eye(3)[np.full(12, best_fixed(units, "A"))]
    # Ties on A are shared by the oracle, so it is compared as the method "oracle" itself is.
    as_oracle = pairwise.summarise(units, {"simmerge": {AB: values[0][:, 0]}}, along=[AB], draws=50)
    as_fixed = pairwise.summarise(units, {"simmerge": {AB: fixed}}, along=[AB], draws=50)
    assert as_fixed["gain_over_best_fixed"]["simmerge"] == {
        "value": 0.0,
        "ci95": [0.0, 0.0],
        "share_of_draws_defined": 1.0,
    }
    headroom = as_fixed["utility"]["oracle"] - as_fixed["utility"]["best_fixed"]
    assert as_fixed["headroom_captured"]["value"] == (0.0 if headroom > 1e-9 else None)
    unique = (values[0][6:, 0] == values[0][6:, 0].max(axis=1, keepdims=True)).sum(axis=1).max() == 1
    if unique and headroom > 1e-9:
        assert as_oracle["headroom_captured"]["value"] == pytest.approx(1.0)
