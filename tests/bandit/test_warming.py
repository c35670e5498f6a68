"""Warm starts: what the posterior knows of the labels, and what exploration is tuned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from bandit_world import ACTIONS, DOMAINS, QUICK, SETTINGS, World, make_world
from threadpoolctl import threadpool_limits

from simmerge_core.bandit import Context, Encoder, Exploration, Posterior, tuned_exploration, warm_start, warming
from simmerge_core.bandit.warming import DEFAULTS
from simmerge_core.errors import BanditError
from simmerge_core.selector import TrainingRows
from simmerge_core.selector.block import block_of

GRID = {"explorations": (0.003, 0.3), "regularisations": (1.0, 30.0), "label_weights": (1.0, 10.0)}
SHORT: dict[str, Any] = {"rounds": 15, "seeds": 2, "config": QUICK, "seed": 5}


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def known(world: World) -> TrainingRows:
    return world.rows("train", "validation")


def ridge(z: np.ndarray, rewards: np.ndarray, *, prior: float, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and precision of the regression with penalty λ‖w‖² in which every row counts `weight` times.

    The weights by least squares on the rows with the prior as rows of their own, not by the normal equations.
    """
    d = z.shape[1]
    tall = np.concatenate([np.sqrt(weight) * z, np.sqrt(prior) * np.eye(d)])
    sides = np.concatenate([np.sqrt(weight) * rewards, np.zeros((d, rewards.shape[1]))])
    return np.linalg.lstsq(tall, sides, rcond=None)[0].T, tall.T @ tall


@pytest.mark.parametrize("policy", ["lints", "linucb", "uniform"])
def test_the_posterior_is_ridge_regression_on_the_encoded_labels(
    world: World, known: TrainingRows, policy: str
) -> None:
    warm = world.warm(policy=policy, seed=7, mixing=0.1)
    z = warm.encoder(block_of(known.features, warm.encoder.feature_names))
    weights, precision = ridge(z, known.utilities, prior=2.0, weight=3.0)
    posterior = warm.bandit.posterior
    np.testing.assert_allclose(posterior.mean, weights, rtol=1e-7, atol=1e-10)
    for arm in range(len(ACTIONS)):
        np.testing.assert_allclose(posterior.precision[arm], precision, rtol=1e-12, atol=1e-12)
    probe = Context(z[0], warm.encoder.key)
    deviation = np.sqrt(z[0] @ np.linalg.solve(precision, z[0]))
    np.testing.assert_allclose(warm.bandit.predict(probe)[1], np.full(len(ACTIONS), deviation), rtol=1e-8)
    assert warm.bandit.kind == policy
    assert warm.bandit.arms == list(ACTIONS)
    assert (warm.bandit.source, warm.bandit.seed, warm.bandit.mixing) == (warm.encoder.key, 7, 0.1)
    assert (warm.bandit.exploration, warm.bandit.regularisation) == (0.05, 2.0)
    assert warm.tuning is None


def test_it_is_the_same_at_one_and_two_threads(world: World) -> None:
    before, keys = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                keys.add(world.warm().bandit.key)
    finally:
        torch.set_num_threads(before)
    assert len(keys) == 1
    assert world.warm(seed=1).bandit.key not in keys


def test_the_test_split_is_never_read(world: World) -> None:
    rows = world.rows()
    test = (rows.meta["split"] == "test").to_numpy()
    changed = replace(rows, utilities=np.where(test[:, None], 7.0, rows.utilities))  # out of range, too
    again = warm_start(changed, config=QUICK, **SETTINGS)
    assert again.bandit.key == world.warm().bandit.key


# --- tuning


@pytest.fixture(scope="module")
def met() -> dict[str, list[Any]]:
    return {"warm": [], "streams": []}


@pytest.fixture(scope="module")
def tuning(known: TrainingRows, met: dict[str, list[Any]]) -> warming.Tuning:
    """Tuned on the grid; what the encoders were fitted on, and what came as rounds, is kept in `met`."""
    train, simulate = warming.train_encoder, warming._simulated_regret

    def training(rows: TrainingRows, **options: Any) -> Encoder:
        met["warm"].append(rows)
        return train(rows, **options)

    def simulated(policy: str, settings: Exploration, anchored: Posterior, *rest: Any, **options: Any) -> float:
        met["streams"].append((settings, anchored, *rest, options["new_task"], options["seed"]))
        return simulate(policy, settings, anchored, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warming, "train_encoder", training)
        patch.setattr(warming, "_simulated_regret", simulated)
        return tuned_exploration(known, policy="lints", **GRID, **SHORT)


def test_the_settings_with_the_least_mean_regret_are_chosen(tuning: warming.Tuning) -> None:
    assert tuning.shifts == DOMAINS
    assert len(tuning.table) == 8
    settings = [(row["exploration"], row["regularisation"], row["label_weight"]) for row in tuning.table]
    assert len(set(settings)) == 8
    for place, axis in enumerate(GRID.values()):
        assert {values[place] for values in settings} == set(axis)
    for row in tuning.table:
        assert row["regret"] == pytest.approx(np.mean([row[domain] for domain in DOMAINS]))
        assert all(row[domain] >= 0.0 for domain in DOMAINS)
    chosen = (tuning.chosen.exploration, tuning.chosen.regularisation, tuning.chosen.label_weight)
    regret = {values: row["regret"] for values, row in zip(settings, tuning.table, strict=True)}
    assert regret[chosen] <= min(regret.values()) + 0.001
    told = tuning.as_json()
    assert tuple(told["chosen"][k] for k in ("exploration", "regularisation", "label_weight")) == chosen
    assert told["shifts"] == list(DOMAINS)


@pytest.mark.parametrize(
    ("regret", "chosen"),
    [
        ({0.003: 0.30, 0.3: 0.20}, 0.3),
        ({0.003: 0.20, 0.3: 0.30}, 0.003),
        ({0.003: 0.2001, 0.3: 0.2004}, 0.3),  # alike: the one that learns more
        ({0.003: 0.201, 0.3: 0.203}, 0.003),
    ],
)
def test_of_settings_that_are_alike_the_one_that_explores_most_is_chosen(
    known: TrainingRows, monkeypatch: pytest.MonkeyPatch, regret: dict[float, float], chosen: float
) -> None:
    monkeypatch.setattr(
        warming, "_simulated_regret", lambda policy, settings, *rest, **options: regret[settings.exploration]
    )
    found = tuned_exploration(
        known, policy="lints", explorations=(0.003, 0.3), regularisations=(1.0,), label_weights=(1.0,), config=QUICK
    )
    assert found.chosen == Exploration(chosen, 1.0, 1.0)


def test_it_is_deterministic(tuning: warming.Tuning, known: TrainingRows) -> None:
    again = tuned_exploration(known, policy="lints", **GRID, **SHORT)
    assert again == tuning


def test_the_domain_that_arrives_was_in_no_label(
    tuning: warming.Tuning, met: dict[str, list[Any]], known: TrainingRows
) -> None:
    assert len(met["warm"]) == len(tuning.shifts)
    for domain, warm in zip(tuning.shifts, met["warm"], strict=True):
        meta = warm.meta
        assert domain not in {*meta["a_domain"], *meta["b_domain"], *meta["task"]}
        untouched = known.meta.filter(
            ~pl.any_horizontal(pl.col("a_domain", "b_domain", "task") == domain)  # everything else is there
        )
        assert meta.equals(untouched)
    by_domain: dict[str, list[Any]] = {}
    for call in met["streams"]:
        by_domain.setdefault(call[-2], []).append(call)
    assert set(by_domain) == set(DOMAINS)
    for domain, calls in by_domain.items():
        assert len(calls) == 8 * 2
        touching = known.meta.filter((pl.col("a_domain") == domain) | (pl.col("b_domain") == domain))
        # Of both orientations, the one with the expert first.
        expected = touching.filter(pl.col("a_domain") == pl.col("task"))
        contexts = calls[0][2]
        assert len(contexts) == expected.height
        assert [c.tasks[0][0] for c in contexts] == expected["task"].to_list()


def played(
    anchored: Posterior, contexts: Sequence[Context], utilities: np.ndarray, *, new_task: str, seed: int, joins: bool
) -> float:
    """Regret of a greedy bandit that solves its equations anew every round; the task has a level if it `joins`."""
    a, b = anchored.precision.copy(), anchored.moment.copy()
    level, regret, seen = 0.0, 0.0, 0
    for at in np.random.default_rng(seed).permutation(len(contexts))[: SHORT["rounds"]]:
        z, (task, _) = contexts[at].z, contexts[at].tasks[0]
        mean = np.array([np.linalg.solve(a[k], b[k]) @ z for k in range(len(ACTIONS))])
        assert np.diff(np.sort(mean))[-1] > 1e-9  # no choice hangs on rounding
        arm, reward = int(mean.argmax()), utilities[at, int(mean.argmax())]
        regret += utilities[at].max() - reward
        own = joins and task == new_task
        if own:
            seen += 1
            level += (reward - mean[arm] - level) / (1.0 + seen)
        a[arm] += np.outer(z, z)
        b[arm] += (reward - level * own) * z
    return float(regret)


def test_regret_is_that_of_playing_the_domain_s_merges(met: dict[str, list[Any]], tuning: warming.Tuning) -> None:
    """Without exploration Thompson sampling is greedy, and can be played with a solver of linear equations."""
    without = []
    # An encoder that found nothing gives constant contexts, where arms that were rewarded alike are equal.
    telling = [call for call in met["streams"] if any(context.z[:-1].any() for context in call[2])]
    assert len({call[-2] for call in telling}) >= 2
    for settings, anchored, contexts, utilities, rounds, new_task, seed in telling[::5]:
        assert rounds == SHORT["rounds"]
        greedy, stream = replace(settings, exploration=0.0), {"new_task": new_task, "seed": seed}
        found = warming._simulated_regret("lints", greedy, anchored, contexts, utilities, rounds, **stream)
        assert found == pytest.approx(played(anchored, contexts, utilities, **stream, joins=True), rel=1e-9)
        without.append(played(anchored, contexts, utilities, **stream, joins=False) - found)
        assert anchored.updates.sum() == 0  # what the runs start from is not moved by them
    assert any(abs(difference) > 1e-6 for difference in without)  # the level of a task that arrives matters


def test_what_is_given_is_not_tuned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Sequence[float]] = {}
    tune = warming.tuned_exploration

    def tuned(rows: TrainingRows, **options: Any) -> warming.Tuning:
        asked.update({k: v for k, v in options.items() if k in GRID})
        return tune(rows, **{**options, "rounds": 5, "seeds": 1})

    monkeypatch.setattr(warming, "tuned_exploration", tuned)
    told: list[float] = []
    warm = warm_start(
        world.rows(),
        regularisation=7.0,
        label_weight=None,
        exploration=0.02,
        config=QUICK,
        progress=lambda message, fraction: told.append(fraction),
    )
    assert asked == {
        "explorations": (0.02,),
        "regularisations": (7.0,),
        "label_weights": warming.LABEL_WEIGHTS,
    }
    assert (warm.bandit.exploration, warm.bandit.regularisation) == (0.02, 7.0)
    assert warm.tuning is not None
    assert warm.tuning.chosen.label_weight in warming.LABEL_WEIGHTS
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_two_domains_are_tuned_on_the_validation_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_world(per_domain=5, domains=("code", "math")).rows("train", "validation")
    streams = []
    monkeypatch.setattr(warming, "_simulated_regret", lambda *a, **o: streams.append((a[3], o["new_task"])) or 0.0)
    found = tuned_exploration(rows, policy="lints", **GRID, **SHORT)
    assert found.shifts == ("validation",)
    validation = rows.meta.filter((pl.col("split") == "validation") & (pl.col("a_domain") == pl.col("task")))
    assert {(len(contexts), new) for contexts, new in streams} == {(validation.height, None)}


def test_too_few_labels_leave_the_defaults(known: TrainingRows) -> None:
    pairs = np.unique(known.pairs)
    few = known.filter(np.isin(known.pairs, pairs[:8]) & (known.meta["split"] == "train").to_numpy())
    found = tuned_exploration(few, policy="lints", config=QUICK)
    assert (found.chosen, found.table, found.shifts) == (DEFAULTS, (), ())
    given = tuned_exploration(few, policy="lints", config=QUICK, explorations=(0.5,), label_weights=(3.0, 10.0))
    assert given.chosen == Exploration(0.5, DEFAULTS.regularisation, DEFAULTS.label_weight)


def test_too_few_pairs_for_an_encoder_are_refused(known: TrainingRows) -> None:
    few = known.filter(np.isin(known.pairs, np.unique(known.pairs)[:7]))
    with pytest.raises(BanditError, match="Only 7 labelled pairs"):
        warm_start(few, config=QUICK)
    with pytest.raises(BanditError, match="Only 0 labelled pairs"):
        warm_start(known.filter(np.zeros(len(known), dtype=bool)), config=QUICK)


@pytest.mark.parametrize("value", [1.25, -0.5])
def test_labels_outside_the_range_of_rewards_are_refused(known: TrainingRows, value: float) -> None:
    utilities = known.utilities.copy()
    utilities[3, 1] = value
    rows = replace(known, utilities=utilities)
    with pytest.raises(BanditError, match=rf"A label is {value:g}, outside .*\[0\.0, 1\.0\]: .*bandit\.reward_range"):
        warm_start(rows, config=QUICK, **SETTINGS)
    wide = warm_start(rows, config=QUICK, reward_range=(-1.0, 2.0), **SETTINGS)
    assert wide.bandit.reward_range == (-1.0, 2.0)


def test_an_unknown_policy_is_refused(known: TrainingRows) -> None:
    with pytest.raises(BanditError, match=r"no policy 'greedy': choose among lints, linucb, uniform\."):
        warm_start(known, policy="greedy", config=QUICK)
