"""What a bandit promises around its mathematics: determinism, arms that come and go, saved states, refusals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from simmerge_core.bandit import POLICIES, Choice, Context, LinearBandit, LinTS, LinUCB, Posterior, UniformBandit
from simmerge_core.bandit.policies import TRIAL_SHARE, TRIALS
from simmerge_core.errors import BanditError

D = 5
ARMS = ["linear", "slerp@0.3", "ties", "dare"]
ENCODER, OTHER_ENCODER = "a1" * 32, "b2" * 32
KINDS = sorted(POLICIES)


def stream(rounds: int, *, seed: int = 0, dimension: int = D) -> tuple[np.ndarray, np.ndarray]:
    """Contexts, and the reward of every arm at each; at most 400 rounds, the same however many are asked for."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(400, dimension))
    rewards = np.clip(0.5 + 0.1 * z[:, :4] + 0.05 * rng.normal(size=(400, 4)), 0.0, 1.0)
    return z[:rounds], rewards[:rounds]


def play(bandit: LinearBandit, rounds: range, *, named: bool = True, seed: int = 0) -> list[Choice]:
    """Choose and learn, round by round."""
    z, rewards = stream(rounds.stop, seed=seed, dimension=bandit.dimension)
    choices = []
    for n in rounds:
        choices.append(bandit.select(z[n], round_id=f"r{n}" if named else None))
        bandit.update(z[n], choices[-1].arm, float(rewards[n, ARMS.index(choices[-1].arm) % 4]))
    return choices


def made(kind: str = "lints", **options: Any) -> LinearBandit:
    """A bandit that has played a little."""
    bandit = POLICIES[kind](ARMS, D, **{"exploration": 0.3, "seed": 11, **options})
    play(bandit, range(40))
    return bandit


def arms_of(choices: list[Choice]) -> list[str]:
    return [choice.arm for choice in choices]


def bits(posterior: Posterior) -> list[bytes]:
    return [getattr(posterior, name).tobytes() for name in ("precision", "moment", "factor", "mean", "updates")]


# Determinism


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_and_rounds_give_the_same_choices_and_bytes(kind: str) -> None:
    one, other = (POLICIES[kind](ARMS, D, seed=3, mixing=0.1) for _ in range(2))
    first, second = play(one, range(150)), play(other, range(150))
    assert arms_of(first) == arms_of(second)
    assert [c.propensity for c in first] == [c.propensity for c in second]
    assert one.key == other.key


def test_a_choice_depends_on_seed_and_round_id_alone() -> None:
    bandit, z = made(mixing=0.2), stream(30)[0]
    forwards = {n: bandit.select(z[n], round_id=f"r{n}") for n in range(30)}
    backwards = {n: bandit.select(z[n], round_id=f"r{n}") for n in reversed(range(30))}
    for n in range(30):
        assert forwards[n].arm == backwards[n].arm
        expected = hashlib.sha256(f"11|r{n}".encode()).hexdigest()[:32]
        assert forwards[n].draw_seed == backwards[n].draw_seed == expected
    same = [bandit.select(z[0], round_id=f"x{n}").arm for n in range(60)]
    other = bandit.copy()
    other.seed = 12
    assert len(set(same)) > 1
    assert [other.select(z[0], round_id=f"x{n}").arm for n in range(60)] != same


def test_rounds_without_an_id_are_numbered() -> None:
    bandit, z = made(), stream(30)[0]
    named = [bandit.select(z[0], round_id=f"select-{n}").arm for n in range(30)]
    counted = [bandit.select(z[0]) for _ in range(30)]
    assert arms_of(counted) == named
    assert [choice.round_id for choice in counted] == [f"select-{n}" for n in range(30)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_is_the_choice_without_its_propensity(kind: str) -> None:
    bandit, z = made(kind, mixing=0.2), stream(100, seed=2)[0]
    bandit.retire_arm("slerp@0.3")
    drawn = [ARMS[bandit.draw(x, round_id=f"r{n}")] for n, x in enumerate(z)]
    assert drawn == arms_of([bandit.select(x, round_id=f"r{n}") for n, x in enumerate(z)])


def test_selecting_teaches_nothing() -> None:
    bandit = made()
    key, known = bandit.key, bits(bandit.posterior)
    for n in range(10):
        bandit.select(np.ones(D), round_id=str(n))
        bandit.probabilities(np.ones(D))
        bandit.predict(np.ones(D))
    assert bandit.key == key
    bandit.select(np.ones(D))
    assert bits(bandit.posterior) == known


def test_threads_of_blas_change_no_byte() -> None:
    """Sizes at which products are split among threads, and rounds enough for factorisations on the way."""
    rng = np.random.default_rng(0)
    d = 48
    z, rewards = rng.normal(size=(2500, d)), rng.random((2500, 2))
    found = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            bandit = LinTS(["a", "b"], d, exploration=0.5)
            bandit.posterior.observe(z[:1900], rewards[:1900])
            arms = []
            for n in range(1900, 2500):
                arms.append(bandit.select(z[n], round_id=str(n)).arm)
                bandit.update(z[n], arms[-1], float(rewards[n, bandit.number(arms[-1])]))
            found.append((bandit.key, arms, bandit.predict(z[0])[1].tobytes()))
    assert found[0] == found[1]
    assert bandit.posterior.updates.max() > 256


# LinUCB and uniform choice


def test_the_highest_bound_is_chosen_and_the_first_of_equals() -> None:
    bandit = made("linucb", exploration=0.7)
    for z in stream(50, seed=5)[0]:
        mean, deviation = bandit.predict(z)
        choice = bandit.select(z)
        assert choice.arm == ARMS[int(np.argmax(mean + 0.7 * deviation))]
        assert choice.propensity == 1.0
        assert choice.probabilities.sum() == 1.0
    fresh = LinUCB(ARMS, D)
    assert fresh.select(np.ones(D)).arm == "linear"
    fresh.retire_arm("linear")
    assert fresh.select(np.ones(D)).arm == "slerp@0.3"


def test_mixing_gives_every_open_arm_a_share() -> None:
    bandit = made("linucb", mixing=0.2)
    bandit.retire_arm("ties")
    choices = [bandit.select(np.ones(D), round_id=str(n)) for n in range(500)]
    best = bandit.predict(np.ones(D))
    expected = np.full(4, 0.2 / 3)
    expected[2] = 0.0
    bound = (best[0] + 0.3 * best[1]) * [1, 1, -np.inf, 1]
    expected[int(np.argmax(bound))] += 0.8
    np.testing.assert_allclose(choices[0].probabilities, expected)
    assert set(arms_of(choices)) == {"linear", "slerp@0.3", "dare"}
    assert all(c.propensity == c.probabilities[ARMS.index(c.arm)] > 0 for c in choices)


# Arms and tasks


def test_a_new_arm_changes_no_other_draw_and_forgets_nothing() -> None:
    bandit, z = made(), stream(400, seed=1)[0]
    before, known = [bandit.select(x, round_id=f"q{n}").arm for n, x in enumerate(z)], bandit.posterior.copy()
    bandit.add_arm("breadcrumbs")
    for name in ("precision", "moment", "factor", "mean", "updates"):
        assert getattr(bandit.posterior, name)[:4].tobytes() == getattr(known, name).tobytes()
    after = [bandit.select(x, round_id=f"q{n}").arm for n, x in enumerate(z)]
    assert {new for old, new in zip(before, after, strict=True) if old != new} == {"breadcrumbs"}
    assert 0 < after.count("breadcrumbs") < 400


def test_a_new_arm_begins_at_the_level_of_the_others_with_the_deviation_of_the_prior() -> None:
    bandit = made(regularisation=2.0)
    expected = bandit.posterior.mean.mean(axis=0)
    bandit.add_arm("breadcrumbs")
    at = np.array([0.2, -1.0, 0.5, 0.0, 2.0])
    mean, deviation = bandit.predict(at)
    assert mean[4] == pytest.approx(at @ expected, rel=1e-12)
    assert deviation[4] == pytest.approx(np.sqrt(at @ at / 2.0), rel=1e-12)
    bandit.update(at, "breadcrumbs", 0.9)
    ridge = np.linalg.solve(2.0 * np.eye(D) + np.outer(at, at), 2.0 * expected + 0.9 * at)
    np.testing.assert_allclose(bandit.posterior.mean[4], ridge, atol=1e-14)


def test_a_retired_arm_is_never_chosen_and_changes_no_other_draw() -> None:
    bandit, z = made(), stream(400, seed=1)[0]
    before, known = [bandit.select(x, round_id=f"q{n}").arm for n, x in enumerate(z)], bits(bandit.posterior)
    bandit.retire_arm("slerp@0.3")
    after = [bandit.select(x, round_id=f"q{n}").arm for n, x in enumerate(z)]
    assert {old for old, new in zip(before, after, strict=True) if old != new} == {"slerp@0.3"}
    assert "slerp@0.3" not in after
    assert bandit.active == ("linear", "ties", "dare")
    assert bits(bandit.posterior) == known
    assert all(bandit.probabilities(x)[1] == 0.0 for x in z[:20])
    bandit.add_arm("slerp@0.3")
    assert [bandit.select(x, round_id=f"q{n}").arm for n, x in enumerate(z)] == before
    assert bits(bandit.posterior) == known


@pytest.mark.parametrize("kind", KINDS)
def test_a_retired_arm_is_never_chosen_by_any_policy(kind: str) -> None:
    bandit = made(kind, mixing=0.5)
    bandit.retire_arm("linear")
    bandit.retire_arm("dare")
    choices = arms_of([bandit.select(np.ones(D), round_id=str(n)) for n in range(100)])
    assert set(choices) == {"slerp@0.3", "ties"}


def test_a_retired_arm_still_learns() -> None:
    """Its round may have been begun before it was retired."""
    one, other = made(), made()
    one.retire_arm("ties")
    for bandit in (one, other):
        bandit.update(np.ones(D), "ties", 0.8)
    assert bits(one.posterior) == bits(other.posterior)
    one.add_arm("ties")
    assert one.key == other.key


def test_an_update_moves_one_arm_only() -> None:
    bandit = made()
    before = bandit.posterior.copy()
    bandit.update(np.ones(D), "ties", 0.25)
    for name in ("precision", "moment", "factor", "mean", "updates"):
        moved = [
            a.tobytes() != b.tobytes()
            for a, b in zip(getattr(before, name), getattr(bandit.posterior, name), strict=True)
        ]
        assert moved == [False, False, True, False]


def test_a_later_task_has_a_level_that_all_arms_share() -> None:
    """Its level is the ridge mean of what was left of the rewards, and arms learn what is left after it."""
    bandit = LinTS(ARMS, D, source=ENCODER, seed=2)
    z, rewards = stream(120)
    weight = np.where(np.arange(120) % 3 == 0, 0.0, 1.0) * (np.arange(120) >= 60)
    taken: dict[str, list[tuple[np.ndarray, float]]] = {arm: [] for arm in ARMS}
    left, known, level = 0.0, 1.0, 0.0  # sums of the ridge regression on one coordinate with a prior of precision 1
    for n in range(120):
        if n == 60:
            bandit.add_task("law")
            assert bandit.dimension == D
        tasks = (("law", float(weight[n])),) if weight[n] else (("math", 1.0),)
        context = Context(z[n], ENCODER, tasks)
        arm = bandit.select(context, round_id=str(n)).arm
        reward = float(rewards[n, ARMS.index(arm)])
        contexts = np.array([x for x, _ in taken[arm]]).reshape(-1, D)
        learned = np.array([r for _, r in taken[arm]])
        mean = np.linalg.solve(np.eye(D) + contexts.T @ contexts, contexts.T @ learned) if taken[arm] else np.zeros(D)
        if weight[n]:
            left += weight[n] * (reward - mean @ z[n])
            known += weight[n] ** 2
            level = left / known
        bandit.update(context, arm, reward)
        taken[arm].append((z[n], reward - weight[n] * level))
    for number, arm in enumerate(ARMS):
        contexts, learned = np.array([x for x, _ in taken[arm]]), np.array([r for _, r in taken[arm]])
        expected = np.linalg.solve(np.eye(D) + contexts.T @ contexts, contexts.T @ learned)
        np.testing.assert_allclose(bandit.posterior.mean[number], expected, atol=1e-12)
    assert bandit.levels["law"].weight == 40.0
    np.testing.assert_allclose(bandit.levels["law"].mean, level, atol=1e-12)


def test_a_level_changes_no_choice() -> None:
    bandit, z = made(), stream(20, seed=3)[0]
    bandit.add_task("law")
    twin = bandit.copy()
    bandit.levels["law"] = bandit.levels["law"].learned(-0.4, 1.0)
    for n, x in enumerate(z):
        context = Context(x, tasks=(("law", 1.0),))
        one, other = bandit.select(context, round_id=str(n)), twin.select(context, round_id=str(n))
        assert one.arm == other.arm
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-9)


def test_a_task_that_joins_moves_no_prediction_of_others() -> None:
    bandit, z = made(), stream(20, seed=3)[0]
    before = [bandit.predict(x) for x in z]
    bandit.add_task("law")
    bandit.add_task("medicine")
    for x, (mean, deviation) in zip(z, before, strict=True):
        np.testing.assert_array_equal(bandit.predict(Context(x, tasks=(("math", 1.0),)))[0], mean)
        np.testing.assert_array_equal(bandit.predict(x)[1], deviation)


def test_a_context_keeps_what_was_decided_on() -> None:
    z = np.arange(3.0)
    context = Context(z, ENCODER)
    key = context.hash
    z[0] = 9.0
    assert context.z[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        context.z[0] = 1.0
    others = [Context(z, ENCODER), Context(np.arange(3.0)), Context(np.arange(3.0), ENCODER, (("math", 1.0),))]
    assert len({key, *(other.hash for other in others)}) == 4
    assert Context(np.arange(3), ENCODER).hash == key


# Saved states


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_bandit_goes_on_as_if_nothing_had_been(kind: str, tmp_path: Path) -> None:
    whole, halved = (
        POLICIES[kind](ARMS, D, exploration=0.3, regularisation=0.7, seed=5, mixing=0.1, reward_range=(-1.0, 2.0))
        for _ in range(2)
    )
    first = play(whole, range(300), named=False)
    second = play(halved, range(131), named=False)
    key = halved.key
    halved.save(tmp_path / "bandit")
    loaded = POLICIES[kind].load(tmp_path / "bandit")
    assert type(loaded) is type(halved)
    assert loaded.key == key
    assert bits(loaded.posterior) == bits(halved.posterior)
    second += play(loaded, range(131, 300), named=False)
    assert arms_of(first) == arms_of(second)
    assert [c.propensity for c in first] == [c.propensity for c in second]
    assert loaded.key == whole.key
    assert halved.key == key  # the loaded one has arrays of its own


def test_everything_that_was_changed_comes_back(tmp_path: Path) -> None:
    bandit = LinTS(ARMS, D, source=ENCODER, mixing=0.05)
    bandit.add_arm("breadcrumbs")
    bandit.retire_arm("slerp@0.3")
    bandit.add_task("law")
    bandit.update(Context(np.ones(D), ENCODER, (("law", 1.0),)), "breadcrumbs", 1.0)
    for found in (LinTS.load(bandit.save(tmp_path / "b")), LinearBandit.load(tmp_path / "b"), bandit.copy()):
        assert type(found) is LinTS
        assert found.key == bandit.key
        assert (found.arms, found.retired, found.tasks) == ([*ARMS, "breadcrumbs"], {"slerp@0.3"}, ("law",))
        assert (found.dimension, found.source, found.mixing) == (D, ENCODER, 0.05)


def test_saving_again_replaces_and_gives_the_same_bytes(tmp_path: Path) -> None:
    bandit = made()
    for folder in ("one", "two", "two"):
        bandit.save(tmp_path / folder)
    for file in ("posterior.safetensors", "bandit.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    bandit.update(np.ones(D), "ties", 0.5)
    bandit.save(tmp_path / "two")
    assert LinTS.load(tmp_path / "two").key == bandit.key
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


def test_a_key_tells_any_two_states_apart() -> None:
    def changed(change: Callable[[LinearBandit], Any]) -> str:
        bandit = made()
        change(bandit)
        return bandit.key

    keys = [
        made().key,
        made("linucb").key,
        made("uniform").key,
        *(made(**{n: v}).key for n, v in {"seed": 12, "mixing": 0.1, "reward_range": (0.0, 2.0)}.items()),
        changed(lambda b: b.add_arm("new")),
        changed(lambda b: b.retire_arm("ties")),
        changed(lambda b: b.add_task("law")),
        changed(lambda b: b.select(np.ones(D))),
        changed(lambda b: b.update(np.ones(D), "ties", 0.5)),
        changed(lambda b: b.update(np.ones(D), "ties", np.nextafter(0.5, 1.0))),
        changed(lambda b: b.update(np.zeros(D), "ties", 0.5)),
    ]
    assert len(set(keys)) == len(keys)
    assert made().key == keys[0]


def test_a_copy_is_another_bandit() -> None:
    bandit = made()
    bandit.add_task("law")
    key, other = bandit.key, bandit.copy()
    assert other.key == key
    other.update(np.ones(D), "ties", 1.0)
    other.retire_arm("ties")
    other.add_arm("new")
    other.add_task("medicine")
    other.select(np.ones(D))
    assert bandit.key == key


# Refusals: by name, with nothing changed


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (float("nan"), r"reward nan of arm 'ties' lies outside \[0, 1\]"),
        (float("inf"), r"reward inf of arm 'ties' lies outside"),
        (-float("inf"), r"reward -inf of arm 'ties' lies outside"),
        (1.0000001, r"reward 1.0000001 of arm 'ties' lies outside \[0, 1\]"),
        (-1e-9, "reward -1e-09 of arm 'ties' lies outside"),
        (np.float64("nan"), "of arm 'ties' lies outside"),
        ("high", "reward 'high' of arm 'ties' is no number"),
        (None, "reward None of arm 'ties' is no number"),
        ([0.5], "of arm 'ties' is no number"),
        (0.5j, "of arm 'ties' is no number"),
        pytest.param(10**400, "of arm 'ties' is no number", id="too large for a float"),
    ],
)
def test_a_reward_that_is_none_is_refused(reward: Any, said: str) -> None:
    bandit = made()
    key = bandit.key
    with pytest.raises(BanditError, match=said):
        bandit.update(np.ones(D), "ties", reward)
    assert bandit.key == key


@pytest.mark.parametrize("reward", [0, 1, True, 0.0, 1.0, np.float32(0.5), np.float64(1.0)])
def test_a_reward_at_the_ends_is_one(reward: Any) -> None:
    bandit = made()
    bandit.update(np.ones(D), "ties", reward)
    other = made()
    other.update(np.ones(D), "ties", float(reward))
    assert bandit.key == other.key


def _bad_contexts() -> dict[str, tuple[Any, str]]:
    ones = np.ones(D)
    return {
        "other encoder": (Context(ones, OTHER_ENCODER), f"made by encoder {'b2' * 6}, .* takes those of {'a1' * 6}"),
        "plain vector": (ones, r"made by encoder \(none\), .* another version"),
        "short": (Context(ones[:-1], ENCODER), r"shape \(4,\), and this bandit takes \(5,\)"),
        "long": (Context(np.ones(D + 1), ENCODER), r"shape \(6,\), and this bandit takes \(5,\)"),
        "matrix": (Context(ones[None], ENCODER), r"shape \(1, 5\)"),
        "scalar": (Context(np.float64(1.0), ENCODER), r"shape \(\)"),
        "NaN": (Context([1, 2, float("nan"), 4, 5], ENCODER), "not finite"),  # type: ignore[arg-type]
        "inf": (Context([1, 2, -float("inf"), 4, 5], ENCODER), "not finite"),  # type: ignore[arg-type]
        "overflow": (Context(1e200 * ones, ENCODER), "too large"),
        "NaN of a task": (Context(ones, ENCODER, (("law", float("nan")),)), "not finite"),
        "inf of a task": (Context(ones, ENCODER, (("law", float("inf")),)), "not finite"),
    }


@pytest.mark.parametrize("name", sorted(_bad_contexts()))
@pytest.mark.parametrize("kind", ["lints", "linucb"])
def test_a_context_that_it_cannot_use_is_refused(kind: str, name: str) -> None:
    context, said = _bad_contexts()[name]
    bandit = POLICIES[kind](ARMS, D, source=ENCODER)
    bandit.add_task("law")
    bandit.update(Context(np.ones(D), ENCODER), "ties", 0.5)
    key = bandit.key
    for attempt in (
        lambda: bandit.update(context, "ties", 0.5),
        lambda: bandit.select(context),
        lambda: bandit.predict(context),
        lambda: bandit.probabilities(context),
    ):
        with pytest.raises(BanditError, match=said):
            attempt()
        assert bandit.key == key


def test_a_context_of_an_encoder_is_none_for_plain_vectors() -> None:
    bandit = made()
    key = bandit.key
    with pytest.raises(BanditError, match=r"takes those of \(none\)"):
        bandit.update(Context(np.ones(D), ENCODER), "ties", 0.5)
    assert bandit.key == key


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda b: b.update(np.ones(D), "slurp", 0.5), "no arm 'slurp': choose among linear, slerp@0.3, ties, dare"),
        (lambda b: b.retire_arm("slurp"), "no arm 'slurp'"),
        (lambda b: b.number("slurp"), "no arm 'slurp'"),
        (lambda b: b.add_arm("ties"), "Arm 'ties' is there already"),
        (lambda b: b.retire_arm("linear"), "Arm 'linear' is retired already"),
        (lambda b: b.add_task("law"), "Task 'law' has joined already"),
    ],
)
def test_arms_and_tasks_that_do_not_fit_are_refused(attempt: Callable[[LinearBandit], Any], said: str) -> None:
    bandit = made()
    bandit.retire_arm("linear")
    bandit.add_task("law")
    key = bandit.key
    with pytest.raises(BanditError, match=said):
        attempt(bandit)
    assert bandit.key == key


def test_the_last_arm_stays() -> None:
    bandit = made()
    for arm in ARMS[1:]:
        bandit.retire_arm(arm)
    key = bandit.key
    with pytest.raises(BanditError, match="Arm 'linear' is the last one"):
        bandit.retire_arm("linear")
    assert bandit.key == key
    assert bandit.select(np.ones(D)).propensity == 1.0


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arms": []}, "must be at least one"),
        ({"arms": ["a", "b", "a"]}, "each named once"),
        ({"dimension": 0}, "context of 0 coordinates"),
        ({"dimension": -3}, "context of -3 coordinates"),
        *(({"exploration": value}, f"exploration {value:g} is no scale") for value in (-0.1, NAN, INF)),
        *(({"regularisation": value}, f"regularisation {value:g} gives no prior") for value in (0.0, -1.0, NAN, INF)),
        *(({"mixing": value}, f"mixing {value:g} is no share") for value in (-0.01, 1.01, NAN)),
        *(
            ({"reward_range": value}, "The reward range .* is none")
            for value in ((1.0, 1.0), (1.0, 0.0), (0.0, NAN), (-INF, INF), (0.0, INF))
        ),
        ({"posterior": Posterior.prior(3, D, regularisation=1.0)}, "of other arms or coordinates"),
        ({"posterior": Posterior.prior(2, D + 1, regularisation=1.0)}, "of other arms or coordinates"),
        ({"posterior": Posterior.prior(2, D, regularisation=1.0), "regularisation": -1.0}, "gives no prior"),
    ],
)
@pytest.mark.parametrize("kind", [LinTS, LinUCB, UniformBandit])
def test_a_bandit_that_cannot_be_is_refused(kind: type[LinearBandit], options: dict[str, Any], said: str) -> None:
    settings = {"arms": ["a", "b"], "dimension": D, **options}
    with pytest.raises(BanditError, match=said):
        kind(settings.pop("arms"), settings.pop("dimension"), **settings)


# Damaged folders


def _edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        described = json.loads((folder / "bandit.json").read_text())
        change(described)
        (folder / "bandit.json").write_text(json.dumps(described))

    return edit


def _replace(old: bytes, new: bytes) -> Callable[[Path], None]:
    """Change the header of the posterior's file, not its length."""

    def replace(folder: Path) -> None:
        path = folder / "posterior.safetensors"
        data = path.read_bytes()
        assert len(old) == len(new)
        assert old in data
        path.write_bytes(data.replace(old, new))

    return replace


def _flip_a_bit(folder: Path) -> None:
    path = folder / "posterior.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def _cut(name: str) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return cut


def _write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def _of_another(folder: Path) -> None:
    other = made(seed=99)
    other.update(np.ones(D), "ties", 1.0)
    other.save(folder.with_name("other"))
    (folder.with_name("other") / "posterior.safetensors").replace(folder / "posterior.safetensors")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "bandit.json").unlink(), "bandit.json is missing; start one first"),
        (lambda f: (f / "posterior.safetensors").unlink(), "posterior.safetensors is missing"),
        (_cut("bandit.json"), r"is damaged \(JSONDecodeError"),
        (_cut("posterior.safetensors"), r"is damaged \(SafetensorError"),
        (_write("posterior.safetensors", b""), "is damaged"),
        (_write("posterior.safetensors", b"\xff" * 400), "is damaged"),
        (_write("bandit.json", b""), "is damaged"),
        (_write("bandit.json", b"\xff\xfe{}"), "is damaged"),
        (_write("bandit.json", b"[]"), "is damaged"),
        (_write("bandit.json", b"{}"), r"is damaged \(KeyError: 'format'"),
        (_edit(lambda d: d.update(format=99)), "is of format 99, not 2, so another version wrote it"),
        (_edit(lambda d: d.update(kind="greedy")), r"is damaged \(KeyError: 'greedy'"),
        (_edit(lambda d: d.pop("key")), r"is damaged \(KeyError: 'key'"),
        (_edit(lambda d: d.pop("seed")), r"is damaged \(KeyError: 'seed'"),
        (_edit(lambda d: d.update(exploration="wide")), "is damaged"),
        (_edit(lambda d: d.update(seed=INF)), "is damaged"),
        (_edit(lambda d: d.update(arms=None)), "is damaged"),
        (_edit(lambda d: d.update(levels=3)), "is damaged"),
        (_edit(lambda d: d.update(exploration=0.31)), "is not what its key says"),
        (_edit(lambda d: d.update(seed=12)), "is not what its key says"),
        (_edit(lambda d: d.update(retired=["ties"])), "is not what its key says"),
        (_edit(lambda d: d.update(selected=5)), "is not what its key says"),
        (_edit(lambda d: d.update(source=ENCODER)), "is not what its key says"),
        (_edit(lambda d: d["arms"].reverse()), "is not what its key says"),
        (_edit(lambda d: d.update(key="0" * 64)), "is not what its key says"),
        (_edit(lambda d: d.update(dimension=D + 1)), "of other arms or coordinates"),
        (_flip_a_bit, "is not what its key says"),
        (_replace(b'"F64"', b'"I64"'), "is not what its key says"),
        (_replace(b"[4,5,5]", b"[5,4,5]"), "is not what its key says"),
        (_of_another, "is not what its key says"),
    ],
)
def test_a_folder_that_was_damaged_or_changed_is_refused(
    damage: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    bandit = made()
    folder = bandit.save(tmp_path / "bandit")
    assert LinTS.load(folder).key == bandit.key
    damage(folder)
    with pytest.raises(BanditError, match=said):
        LinTS.load(folder)


def test_a_folder_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BanditError, match=r"There is no bandit in .*nowhere"):
        LinTS.load(tmp_path / "nowhere")


def test_one_policy_is_not_loaded_as_another(tmp_path: Path) -> None:
    folder = made("linucb").save(tmp_path / "bandit")
    with pytest.raises(BanditError, match="is linucb, not lints"):
        LinTS.load(folder)
    assert type(LinearBandit.load(folder)) is LinUCB


def test_an_arm_that_joins_is_tried_however_sure_the_bandit_is() -> None:
    """At settings that trust the labels a new arm would hardly ever be drawn, however good it is."""
    z, rewards = stream(400)
    bandit = LinTS(ARMS, D, exploration=0.003, regularisation=100.0, seed=1, reward_range=(-1.0, 2.0))
    for n in range(200):
        bandit.update(z[n], ARMS[n % len(ARMS)], float(rewards[n, n % len(ARMS)]))
    bandit.add_arm("breadcrumbs")
    assert bandit.on_trial == ("breadcrumbs",)
    chosen: list[str] = []
    for n in range(200, 400):
        choice = bandit.select(z[n], round_id=str(n))
        np.testing.assert_allclose(choice.probabilities.sum(), 1.0, atol=1e-12)
        if bandit.on_trial:
            assert choice.probabilities[-1] >= TRIAL_SHARE
        bandit.update(z[n], choice.arm, 0.9 if choice.arm == "breadcrumbs" else 0.5)
        chosen.append(choice.arm)
        if not bandit.on_trial:
            break
    assert chosen.count("breadcrumbs") == TRIALS
    assert len(chosen) < 150
    assert bandit.copy().trials == bandit.trials == {}


def test_a_trial_survives_saving_and_ends_when_the_arm_is_retired(tmp_path: Path) -> None:
    bandit = made()
    bandit.add_arm("breadcrumbs")
    bandit.update(np.ones(D), "breadcrumbs", 0.5)
    loaded = LinTS.load(bandit.save(tmp_path / "bandit"))
    assert loaded.trials == {"breadcrumbs": TRIALS - 1}
    loaded.retire_arm("breadcrumbs")
    assert loaded.on_trial == ()
    assert loaded.probabilities(np.ones(D))[-1] == 0.0
