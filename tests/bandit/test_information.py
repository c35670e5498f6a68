"""Which pairs to label next: against determinants computed afresh, exhaustive optima, quadrature, and real learning."""

from __future__ import annotations

import math
import time
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtr

from simmerge_core.bandit import Posterior
from simmerge_core.bandit.information import Group, Pick, expected_regret, most_informative
from simmerge_core.errors import BanditError

CRITERIA = ("information", "regret")


def posterior_of(rng: np.random.Generator, arms: int, dimension: int, *, shared: bool, labels: int = 12) -> Posterior:
    known = Posterior.prior(arms, dimension, regularisation=0.5)
    rewards = rng.normal(size=(labels, arms))
    if not shared:
        rewards[rng.random(rewards.shape) < 0.4] = np.nan
    known.observe(rng.normal(size=(labels, dimension)), rewards)
    return known


def groups_of(
    rng: np.random.Generator, count: int, dimension: int, *, rows: int = 4, costs: tuple[float, ...] = (1.0,)
) -> list[Group]:
    return [
        Group(f"pair-{i:02d}", rng.normal(size=(rng.integers(1, rows + 1), dimension)), float(rng.choice(costs)))
        for i in range(count)
    ]


def told(known: Posterior, rows: list[np.ndarray], arms: list[int]) -> float:
    """Nats that labels of these rows tell, from the determinants of the precisions with and without them."""
    z = np.concatenate(rows) if rows else np.zeros((0, known.dimension))
    return sum(
        0.5 * (np.linalg.slogdet(known.precision[a] + z.T @ z)[1] - np.linalg.slogdet(known.precision[a])[1])
        for a in arms
    )


def regret_by_quadrature(mean: np.ndarray, deviation: np.ndarray) -> float:
    """E[max] − max E as ∫ (1 − ΠF) above the best mean less ∫ ΠF below it, by adaptive quadrature between marks."""
    best = float(mean.max())
    s = np.maximum(deviation, 1e-12)
    marks = np.unique(np.append((mean[:, None] + s[:, None] * np.array([-9, -6, -4, -2, -1, 0, 1, 2, 4, 6, 9])), best))

    def below(v: float) -> float:
        return float(np.prod(ndtr((v - mean) / s)))

    total = 0.0
    for a, b in pairwise(marks.tolist()):
        above = a >= best
        total += quad(lambda v, above=above: 1.0 - below(v) if above else -below(v), a, b, epsabs=1e-13)[0]
    return total


def counted(groups: list[Group], known: Posterior, arms: list[int], exploration: float) -> dict[str, np.ndarray]:
    """Rows of each group times the root of what they count under `regret`, row by row."""
    regrets = {}
    for group in groups:
        moments = [known.predict(z) for z in group.contexts]
        regrets[group.id] = [regret_by_quadrature(m[arms], exploration * s[arms]) for m, s in moments]
    mean = np.mean([r for rows in regrets.values() for r in rows])
    return {g.id: g.contexts * np.sqrt(np.array(regrets[g.id]) / mean)[:, None] for g in groups}


def brute_force(rows: dict[str, np.ndarray], groups: list[Group], known: Posterior, arms: list[int], budget: float):
    """The greedy choice with every determinant computed afresh at every step."""
    costs = {g.id: g.cost for g in groups}
    taken: list[str] = []
    gains, spent = [], 0.0
    while True:
        before = told(known, [rows[t] for t in taken], arms)
        open_ones = [id for id in sorted(rows) if id not in taken and spent + costs[id] <= budget]
        if not open_ones:
            return taken, gains
        gain = {id: told(known, [rows[t] for t in [*taken, id]], arms) - before for id in open_ones}
        best = max(open_ones, key=lambda id: gain[id] / costs[id])
        taken.append(best)
        gains.append(gain[best])
        spent += costs[best]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("costs", [(1.0,), (2.0, 3.0, 7.0)])
@pytest.mark.parametrize("arms", [[0, 1, 2, 3], [2, 0]])
def test_the_choice_is_the_greedy_one(shared: bool, criterion, costs: tuple[float, ...], arms: list[int]) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        known, groups = posterior_of(rng, 4, 5, shared=shared), groups_of(rng, 16, 5, rows=7, costs=costs)
        rows = {g.id: g.contexts for g in groups}
        if criterion == "regret":
            rows = counted(groups, known, arms, 0.7)
        budget = 8.0 * sum(costs) / len(costs)
        picks = most_informative(groups, known, budget=budget, criterion=criterion, exploration=0.7, arms=arms)
        names, gains = brute_force(rows, groups, known, arms, budget)
        assert [p.group for p in picks] == names
        assert [p.gain for p in picks] == pytest.approx(gains, rel=1e-6, abs=1e-9)
        assert picks[-1].spent <= budget


def test_labels_of_another_weight() -> None:
    rng = np.random.default_rng(1)
    known, groups = posterior_of(rng, 2, 4, shared=True), groups_of(rng, 20, 4)
    picks = most_informative(groups, known, budget=6, weight=0.25)
    names, gains = brute_force({g.id: 0.5 * g.contexts for g in groups}, groups, known, [0, 1], 6)
    assert [p.group for p in picks] == names
    assert [p.gain for p in picks] == pytest.approx(gains)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_gains_add_up_are_positive_and_fall(seed: int, shared: bool) -> None:
    """The chain rule of information, monotony, and submodularity: a group tells less after any other."""
    rng = np.random.default_rng(seed)
    known, groups = posterior_of(rng, 3, 4, shared=shared, labels=5), groups_of(rng, 6, 4)
    picks = most_informative(groups, known, budget=6)
    rows = {g.id: g.contexts for g in groups}
    assert sum(p.gain for p in picks) == pytest.approx(told(known, list(rows.values()), [0, 1, 2]))
    assert all(p.gain > 0 for p in picks)
    assert all(a.gain >= b.gain * (1 - 1e-12) for a, b in pairwise(picks))
    after = known.copy()
    first = rows[picks[0].group]
    for arm in range(3):
        for z in first:
            after.update(arm, z, 0.0)
    for group in groups:
        alone = most_informative([group], known, budget=1)[0].gain
        later = most_informative([group], after, budget=1)[0].gain
        assert alone == pytest.approx(told(known, [group.contexts], [0, 1, 2]))
        assert later <= alone * (1 + 1e-12)
    rest = [g for g in groups if g.id != picks[0].group]
    assert [p.group for p in most_informative(rest, after, budget=5)] == [p.group for p in picks[1:]]


def test_the_guarantees_hold_against_every_set() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        for costs, share in (((1.0,), 1 - 1 / math.e), ((1.0, 2.0, 5.0), 0.5 * (1 - 1 / math.e))):
            known, groups = posterior_of(rng, 2, 3, shared=True, labels=2), groups_of(rng, 9, 3, costs=costs)
            found = sum(p.gain for p in most_informative(groups, known, budget=4))
            most = max(
                told(known, [g.contexts for g in some], [0, 1])
                for size in range(1, 5)
                for some in combinations(groups, size)
                if sum(g.cost for g in some) <= 4
            )
            assert share * most <= found <= most * (1 + 1e-12)


def test_a_group_that_tells_more_than_all_cheap_ones_is_not_lost() -> None:
    """By gain per merge the cheap group comes first and leaves no room for the other."""
    known = Posterior.prior(1, 2, regularisation=1.0)
    cheap, dear = Group("cheap", [[0.5, 0.0]], 1.0), Group("dear", [[0.0, 3.0]], 20.0)
    assert [p.group for p in most_informative([cheap, dear], known, budget=20)] == ["dear"]
    assert [p.group for p in most_informative([cheap, dear], known, budget=21)] == ["cheap", "dear"]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_duplicates_wait_for_something_new(criterion) -> None:
    known = Posterior.prior(3, 4, regularisation=1.0)
    copies = [Group(f"a{i}", 2.0 * np.eye(4)[:1] + 1e-9 * i) for i in range(5)]
    fresh = [Group(f"b{i}", 1.5 * np.eye(4)[i : i + 1]) for i in (1, 2, 3)]
    picks = [p.group for p in most_informative(copies + fresh, known, budget=5, criterion=criterion)]
    assert {p[0] for p in picks[1:4]} == {"b"}
    assert {picks[0][0], picks[4][0]} == {"a"}


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("shared", [True, False])
def test_order_changes_no_bit_and_ties_go_by_id(criterion, shared: bool) -> None:
    rng = np.random.default_rng(3)
    known = posterior_of(rng, 4, 9, shared=shared)
    groups = groups_of(rng, 150, 9, rows=12, costs=(1.0, 2.0))
    # Exact copies, which blocks of other sizes must not tell apart.
    groups += [Group(f"copy-{g.id}", g.contexts.copy(), g.cost) for g in groups]
    want = most_informative(groups, known, budget=60, criterion=criterion)
    assert sum(p.cost for p in want) in (59.0, 60.0)
    place = {p.group: i for i, p in enumerate(want)}
    for name, i in place.items():
        if not name.startswith("copy-"):  # "copy-…" sorts before "pair-…"
            assert place[f"copy-{name}"] < i
    for _ in range(5):
        turned = [groups[i] for i in rng.permutation(len(groups))]
        assert most_informative(turned, known, budget=60, criterion=criterion) == want


def test_many_candidates_are_searched_as_few_are() -> None:
    """Several blocks and lazy batches, against a search that computes every gain at every step."""
    rng = np.random.default_rng(4)
    known, z = Posterior.prior(2, 8, regularisation=1.0), rng.normal(size=(4000, 8))
    picks = most_informative([Group(f"{i:05d}", z[i : i + 1]) for i in range(4000)], known, budget=40)
    covariance, want = np.eye(8), []
    for _ in range(40):
        variance = np.einsum("nd,de,ne->n", z, covariance, z)
        variance[[int(name) for name, _ in want]] = 0.0
        best = int(np.argmax(variance))
        want.append((f"{best:05d}", math.log1p(variance[best])))
        turned = covariance @ z[best]
        covariance -= np.outer(turned, turned) / (1.0 + variance[best])
    assert [p.group for p in picks] == [name for name, _ in want]
    assert [p.gain for p in picks] == pytest.approx([gain for _, gain in want])


@given(st.integers(0, 10_000), st.floats(0, 40))
@settings(max_examples=40, deadline=None)
def test_the_budget_is_kept(seed: int, budget: float) -> None:
    rng = np.random.default_rng(seed)
    known, groups = posterior_of(rng, 2, 3, shared=True), groups_of(rng, 12, 3, costs=(0.1, 0.3, 2.5, 7.0))
    picks = most_informative(groups, known, budget=budget)
    costs, spent = {g.id: g.cost for g in groups}, 0.0
    for pick in picks:
        spent += pick.cost
        assert pick.cost == costs[pick.group]
        assert pick.spent == spent
    assert spent <= budget
    left = [g for g in groups if g.id not in {p.group for p in picks}]
    assert all(spent + g.cost > budget for g in left)


def test_what_tells_nothing_is_not_picked() -> None:
    known = Posterior.prior(2, 3, regularisation=1.0)
    nothing, something = Group("a", np.zeros((2, 3))), Group("b", np.ones((1, 3)))
    assert [p.group for p in most_informative([nothing, something], known, budget=9)] == ["b"]
    assert most_informative([], known, budget=9) == []
    assert most_informative([something], known, budget=0) == []
    settled = most_informative([something], known, budget=9, criterion="regret", exploration=0.0)
    assert settled == []


@pytest.mark.parametrize("size", [1e7, 1e30])
def test_contexts_of_any_size_are_searched(size: float) -> None:
    """Where the identity is lost beside the Gram matrix, a factorisation would fail."""
    known = Posterior.prior(2, 3, regularisation=1.0)
    large = Group("large", size * np.ones((3, 3)))
    small = Group("small", [[1e-3, -1e-3, 0.0], [0.0, 1e-3, -1e-3]])
    picks = most_informative([small, large], known, budget=2)
    assert [p.group for p in picks] == ["large", "small"]
    if size < 1e10:  # beyond, the equal rows differ by rounding that is large beside the prior
        assert picks[0].gain == pytest.approx(math.log1p(9.0 * size**2), rel=1e-9)
        assert picks[1].gain == pytest.approx(told(known, [small.contexts], [0, 1]), rel=1e-6)


def test_the_posterior_stays_and_progress_is_told() -> None:
    rng = np.random.default_rng(6)
    known, groups = posterior_of(rng, 3, 4, shared=False), groups_of(rng, 10, 4)
    before, shares = known.copy(), []
    picks = most_informative(groups, known, budget=8, progress=shares.append)
    assert shares == [p.spent / 8 for p in picks]
    for name in ("precision", "moment", "factor", "mean", "updates"):
        assert np.array_equal(getattr(before, name), getattr(known, name))
    assert most_informative(groups, known, budget=8, deadline=time.monotonic() - 1.0) == picks[:1]


@pytest.mark.parametrize("arms", [1, 2, 3, 10])
@pytest.mark.parametrize("kind", ["alike", "other", "wide", "level", "points"])
def test_expected_regret_is_that_of_quadrature(arms: int, kind: str) -> None:
    rng = np.random.default_rng(arms)
    mean, deviation = rng.normal(size=(6, arms)), np.full((6, arms), 0.7)
    if kind != "alike":
        deviation = np.exp(rng.normal(0.0, 0.7, (6, arms)))
    if kind == "wide":
        deviation = 10.0 ** rng.uniform(-3, 1, (6, arms))
    if kind == "level":
        mean = np.zeros((6, arms))
    if kind == "points":
        deviation[rng.random((6, arms)) < 0.5] = 0.0
    want = [regret_by_quadrature(m, s) for m, s in zip(mean, deviation, strict=True)]
    assert expected_regret(mean, deviation) == pytest.approx(want, abs=1e-7 * max(deviation.max(), 1e-3))


def test_expected_regret_in_closed_form_and_by_draws() -> None:
    assert expected_regret(np.zeros((1, 2)), np.ones((1, 2)))[0] == pytest.approx(1 / math.sqrt(math.pi), abs=1e-8)
    assert expected_regret(np.array([[1.0, 0.0]]), np.zeros((1, 2)))[0] == 0.0
    # Two arms: θ φ(δ/θ) − δ Φ(−δ/θ), to its own digits however small it is.
    for gap in (0.5, 3.0, 6.0):
        theta = math.hypot(0.8, 0.3)
        density = math.exp(-0.5 * (gap / theta) ** 2) / math.sqrt(2 * math.pi)
        want = theta * density - gap * ndtr(-gap / theta)
        assert expected_regret(np.array([[gap, 0.0]]), np.array([[0.8, 0.3]]))[0] == pytest.approx(want, rel=1e-5)
    rng = np.random.default_rng(8)
    mean, deviation = rng.normal(size=(5, 6)), np.exp(rng.normal(size=(5, 6)))
    draws = mean + deviation * rng.standard_normal((100_000, 5, 6))
    best = draws.max(axis=2)
    error = best.std(axis=0) / math.sqrt(len(draws))
    assert np.all(np.abs(best.mean(axis=0) - mean.max(axis=1) - expected_regret(mean, deviation)) < 4 * error)


def left_after(criterion: str, *, settled: bool, seed: int) -> float:
    """Simple regret at new contexts after 30 labels chosen by a criterion, or at random, on top of 40.

    Where decisions are settled, there are five tasks with coordinates of their own, on four of which one arm leads by
    far; otherwise every coordinate matters everywhere, and decisions are alike.
    """
    rng = np.random.default_rng(seed)
    arms, tasks, own, noise = 6, 5, 9, 0.05
    d = tasks * own
    mixing = rng.standard_normal((d, d)) / math.sqrt(d) * np.linspace(1.5, 0.1, d)
    weights = rng.normal(0, 0.05, (arms, d))
    if settled:
        weights[rng.integers(arms, size=tasks - 1), np.arange(tasks - 1) * own] += 1.0

    def contexts(n: int) -> np.ndarray:
        if not settled:
            return rng.standard_normal((n, d)) @ mixing.T
        z, task = np.zeros((n, tasks, own)), rng.integers(0, tasks, n)
        z[np.arange(n), task] = np.column_stack([np.ones(n), rng.normal(0, 0.5, (n, own - 1))])
        return z.reshape(n, d)

    pool, new = contexts(600), contexts(1000)
    labels = pool @ weights.T + rng.normal(0, noise, (600, arms))
    known = Posterior.prior(arms, d, regularisation=1.0)
    known.observe(pool[:40], labels[:40])
    if criterion == "random":
        at = rng.choice(np.arange(40, 600), 30, replace=False)
    else:
        groups = [Group(f"{i:03d}", pool[i : i + 1]) for i in range(40, 600)]
        picks = most_informative(groups, known, budget=30, criterion=criterion, exploration=noise)
        at = np.array([int(p.group) for p in picks])
    known.observe(pool[at], labels[at])
    true = new @ weights.T
    return float((true.max(axis=1) - true[np.arange(1000), (new @ known.mean.T).argmax(axis=1)]).mean())


@pytest.mark.parametrize(("settled", "better"), [(False, "information"), (True, "regret")])
def test_chosen_labels_teach_more_than_random_ones_each_criterion_where_it_says(settled: bool, better: str) -> None:
    left = {c: np.mean([left_after(c, settled=settled, seed=s) for s in range(12)]) for c in (*CRITERIA, "random")}
    assert max(left[c] for c in CRITERIA) < left["random"]
    assert min(left, key=left.__getitem__) == better


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"budget": -1.0}, "budget -1"),
        ({"budget": math.nan}, "budget nan"),
        ({"exploration": -0.1}, "exploration -0.1"),
        ({"weight": 0.0}, "weight 0"),
        ({"criterion": "luck"}, "criterion 'luck'"),
        ({"arms": [0, 2]}, r"arms \[0, 2\]"),
        ({"arms": []}, r"arms \[\]"),
        ({"arms": [1, 1]}, r"arms \[1, 1\]"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(change: dict, says: str) -> None:
    known = Posterior.prior(2, 3, regularisation=1.0)
    with pytest.raises(BanditError, match=says):
        most_informative([Group("a", np.ones((1, 3)))], known, **{"budget": 1.0, **change})


@pytest.mark.parametrize(
    ("contexts", "cost", "says"),
    [
        ([[0.0, math.nan]], 1.0, "'x+y' holds a number that is not finite"),
        ([[0.0, 1e60]], 1.0, "'x+y' holds a number that is not finite"),
        ([0.0, 1.0], 1.0, r"'x\+y' have shape \(2,\)"),
        (np.zeros((0, 2)), 1.0, r"'x\+y' have shape \(0, 2\)"),
        ([[0.0, 1.0]], 0.0, r"cost 0 of group 'x\+y'"),
        ([[0.0, 1.0]], math.inf, r"cost inf of group 'x\+y'"),
    ],
)
def test_a_group_that_cannot_be_labelled_is_refused_by_its_id(contexts, cost: float, says: str) -> None:
    with pytest.raises(BanditError, match=says.replace("x+y' holds", r"x\+y' holds")):
        Group("x+y", contexts, cost)


def test_groups_that_do_not_fit_are_refused_by_their_id() -> None:
    known, groups = Posterior.prior(2, 3, regularisation=1.0), [Group("a", np.ones((1, 3)))]
    with pytest.raises(BanditError, match="Two groups have the id 'a'"):
        most_informative([*groups, Group("a", np.zeros((1, 3)))], known, budget=1)
    with pytest.raises(BanditError, match="group 'b' have 4 coordinates"):
        most_informative([*groups, Group("b", np.zeros((1, 4)))], known, budget=1)


def test_a_pick_is_what_it_says() -> None:
    pick = most_informative([Group("a", [[1.0, 0.0]], 7.0)], Posterior.prior(3, 2, regularisation=1.0), budget=7)[0]
    assert pick == Pick("a", pytest.approx(3 * 0.5 * math.log(2.0)), 7.0, 7.0)
