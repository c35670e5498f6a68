"""Every operator against a float64 reference written here from its paper, and the properties the selector relies on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simmerge_core.errors import OperatorError
from simmerge_core.operators import OPERATORS, check_action, parse_action
from simmerge_core.operators.operator import BLOCK
from simmerge_core.operators.rules import dare, ties_task_vector

NAMES = (
    *("linear", "slerp", "ties", "ties_task_vector", "task_arithmetic", "norm_balanced", "dare"),
    *("breadcrumbs", "model_stock", "rescaled_arithmetic"),
)
alphas = st.floats(0.0, 1.0, width=32)
sizes = st.integers(1, 400)
seeds = st.integers(0, 2**31)


def drawn(seed: int, *shape: int, count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def fine_tunes(seed: int, *shape: int, spread: float = 0.1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    base, da, db = drawn(seed, *shape)
    return base + spread * da, base + spread * db, base


def as64(*tensors: torch.Tensor) -> list[np.ndarray]:
    return [t.numpy().astype(np.float64) for t in tensors]


def slerp_reference(a: torch.Tensor, b: torch.Tensor, alpha: float) -> np.ndarray:
    """App. A.2 with the angle from the chord (Kahan), in long double: no cancellation for close vectors."""
    x, y = (t.numpy().astype(np.longdouble) for t in (a, b))
    nx, ny = np.sqrt((x * x).sum()), np.sqrt((y * y).sum())
    u, v = x / nx, y / ny
    angle = 2 * np.arctan2(np.sqrt(((u - v) ** 2).sum()), np.sqrt(((u + v) ** 2).sum()))
    if angle == 0:
        return ((nx + ny) / 2 * u).astype(np.float64)
    unit = (np.sin((1 - alpha) * angle) * u + np.sin(alpha * angle) * v) / np.sin(angle)
    return ((nx + ny) / 2 * unit / np.sqrt((unit * unit).sum())).astype(np.float64)


def test_all_operators_are_found_and_declared() -> None:
    assert set(OPERATORS) == set(NAMES)
    for name, operator in OPERATORS.items():
        assert operator.name == name
        assert operator.citation
        assert operator.summary
        for parameter in operator.params.values():
            assert parameter.low <= parameter.default <= parameter.high


@given(seeds, sizes, alphas)
@settings(max_examples=40, deadline=None)
def test_linear_is_the_weighted_mean(seed: int, size: int, alpha: float) -> None:
    a, b, _ = drawn(seed, size)
    x, y = as64(a, b)
    np.testing.assert_allclose(
        OPERATORS["linear"](a, b, alpha=alpha), (1 - alpha) * x + alpha * y, rtol=1e-6, atol=1e-6
    )


@given(seeds, st.integers(2, 400), alphas)
@settings(max_examples=60, deadline=None)
def test_slerp_follows_the_great_circle_at_the_mean_norm(seed: int, size: int, alpha: float) -> None:
    a, b, _ = drawn(seed, size)
    if (torch.nn.functional.cosine_similarity(a, b, dim=0) + 1) < 1e-3:
        return  # near-opposite directions have a test of their own
    merged = OPERATORS["slerp"](a, b, alpha=alpha)
    np.testing.assert_allclose(merged, slerp_reference(a, b, alpha), rtol=2e-5, atol=2e-5)
    mean = (a.double().norm() + b.double().norm()) / 2
    assert merged.double().norm().item() == pytest.approx(mean.item(), rel=1e-6)


@pytest.mark.parametrize("spread", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 0.0])
@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_slerp_of_close_vectors_is_exact(spread: float, alpha: float) -> None:
    """No threshold: where the cosine is 0.99999 the result is still slerp's, not linear's."""
    a, b, _ = fine_tunes(3, 5000, spread=spread)
    merged = OPERATORS["slerp"](a, b, alpha=alpha)
    reference = slerp_reference(a, b, alpha)
    error = np.linalg.norm(merged.numpy() - reference) / np.linalg.norm(reference)
    assert error < 1.5e-7  # float32 rounding
    if spread >= 1e-2:
        linear = (1 - alpha) * a.double().numpy() + alpha * b.double().numpy()
        assert np.linalg.norm(linear - reference) / np.linalg.norm(reference) > 10 * error


def test_slerp_at_half_is_the_mean_direction() -> None:
    a, b, _ = drawn(5, 300)
    x, y = as64(a, b)
    u, v = x / np.linalg.norm(x), y / np.linalg.norm(y)
    expected = (np.linalg.norm(x) + np.linalg.norm(y)) / 2 * (u + v) / np.linalg.norm(u + v)
    np.testing.assert_allclose(OPERATORS["slerp"](a, b), expected, rtol=1e-5, atol=1e-6)


def test_slerp_where_the_path_is_undefined_is_linear() -> None:
    a, zero = torch.tensor([3.0, -4.0]), torch.zeros(2)
    for x, y in ((a, zero), (zero, a), (zero, zero), (a, -2 * a), (a, -a)):
        for alpha in (0.0, 0.25, 1.0):
            torch.testing.assert_close(OPERATORS["slerp"](x, y, alpha=alpha), (1 - alpha) * x + alpha * y)


def test_slerp_of_parallel_vectors_keeps_the_direction() -> None:
    a = torch.tensor([3.0, -4.0])
    torch.testing.assert_close(OPERATORS["slerp"](a, 3 * a, alpha=0.2), 2 * a)


def ties_reference(a: float, b: float, alpha: float, tau: float) -> float:
    """App. A.3 case by case; alpha weighs b."""
    product = float(a) * float(b)
    if product > 0 and max(abs(a), abs(b)) >= tau:
        return (1 - alpha) * a + alpha * b
    if product <= 0 and abs(a) >= abs(b) and abs(a) >= tau:
        return a
    if product <= 0 and abs(b) > abs(a) and abs(b) >= tau:
        return b
    return 0.0


coordinates = st.lists(
    st.tuples(*[st.one_of(st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0]), st.floats(-4, 4, width=32))] * 2),
    min_size=1,
    max_size=40,
)


@given(coordinates, alphas, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
@settings(max_examples=120, deadline=None)
def test_ties_is_the_paper_rule_coordinate_by_coordinate(
    pairs: list[tuple[float, float]], alpha: float, tau: float
) -> None:
    a, b = (torch.tensor(x, dtype=torch.float32) for x in zip(*pairs, strict=True))
    expected = [ties_reference(x, y, alpha, tau) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    np.testing.assert_allclose(OPERATORS["ties"](a, b, alpha=alpha, tau=tau), expected, rtol=1e-6, atol=1e-12)


def test_ties_compares_signs_where_the_product_would_underflow() -> None:
    a, b = torch.tensor([1e-30, 1e-30]), torch.tensor([3e-30, -3e-30])
    torch.testing.assert_close(OPERATORS["ties"](a, b), torch.tensor([2e-30, -3e-30]), rtol=1e-6, atol=0.0)


def ties_merging_reference(
    a: torch.Tensor, b: torch.Tensor, base: torch.Tensor, *, alpha: float, density: float, lam: float
) -> np.ndarray:
    """Yadav et al. 2023, Algorithm 1, by sorting and loops; with equal weights it is theirs."""
    origin = base.numpy()
    vectors = [(t.numpy() - origin).ravel() for t in (a, b)]  # float32, as the operator sees them
    trimmed = []
    for vector in vectors:
        keep = max(1, round(density * vector.size))
        least = np.sort(np.abs(vector))[::-1][keep - 1]
        trimmed.append([float(x) if abs(x) >= least else 0.0 for x in vector])
    merged = []
    for x, y in zip(*trimmed, strict=True):
        weighted = [((1 - alpha), x), (alpha, y)]
        total = sum(w * v for w, v in weighted)
        sign = math.copysign(1.0, total) if abs(total) > 1e-12 else 0.0
        agreeing = [(w, v) for w, v in weighted if v * sign > 0]
        weight = sum(w for w, _ in agreeing)
        merged.append(lam * sum(w * v for w, v in agreeing) / weight if weight else 0.0)
    return origin.astype(np.float64) + np.array(merged).reshape(origin.shape)


@given(
    seeds,
    sizes,
    st.sampled_from([0.25, 0.5, 0.7]),
    st.sampled_from([0.1, 0.2, 0.5, 0.9, 1.0]),
    st.sampled_from([0.5, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_ties_task_vector_is_ties_merging(seed: int, size: int, alpha: float, density: float, lam: float) -> None:
    a, b, base = fine_tunes(seed, size)
    merged = OPERATORS["ties_task_vector"](a, b, base=base, alpha=alpha, density=density, lam=lam)
    expected = ties_merging_reference(a, b, base, alpha=alpha, density=density, lam=lam)
    np.testing.assert_allclose(merged, expected, rtol=1e-5, atol=1e-6)


@given(seeds, st.integers(1, 3000), st.floats(0.0, 1.0), st.sampled_from(["normal", "ties", "zeros", "tiny"]))
@settings(max_examples=60, deadline=None)
def test_the_histogram_threshold_is_the_sorted_one(seed: int, size: int, density: float, kind: str) -> None:
    a, b, base = fine_tunes(seed, size)
    if kind == "ties":
        a, b = (base + torch.round(4 * (t - base)) / 4 for t in (a, b))
    elif kind == "zeros":
        a = base.clone()
    elif kind == "tiny":
        a, b, base = (torch.where(t > 0, t * 1e-40, t) for t in (a, b, base))
    setting = ties_task_vector.OPERATOR.setting(alpha=0.5, params={"density": density}, size=size)
    half = size // 2 + 1
    parts = [ties_task_vector.Block(a[s], b[s], base[s], s.start) for s in (slice(0, half), slice(half, size))]
    known = None
    for one in ties_task_vector.OPERATOR.passes:
        known = one.conclude(sum(one.measure(p, setting, known) for p in parts), setting, known)
    keep = max(1, round(density * size))
    expected = [np.sort(np.abs((t - base).numpy()))[::-1][keep - 1] for t in (a, b)]
    assert known == tuple(map(float, expected))
    assert ties_task_vector._selected(ties_task_vector.Block(a, b, base), setting) == known


@given(seeds, sizes, alphas)
@settings(max_examples=40, deadline=None)
def test_task_arithmetic(seed: int, size: int, alpha: float) -> None:
    a, b, base = fine_tunes(seed, size)
    x, y, z = as64(a, b, base)
    expected = z + 0.6 * ((1 - alpha) * (x - z) + alpha * (y - z))
    np.testing.assert_allclose(
        OPERATORS["task_arithmetic"](a, b, base=base, alpha=alpha), expected, rtol=1e-5, atol=1e-6
    )


@given(seeds, sizes, alphas)
@settings(max_examples=40, deadline=None)
def test_norm_balanced(seed: int, size: int, alpha: float) -> None:
    a, _, base = fine_tunes(seed, size)
    b = base + 7 * drawn(seed + 1, size, count=1)[0]
    x, y, z = as64(a, b, base)
    norms = [np.linalg.norm(x - z), np.linalg.norm(y - z)]
    expected = z + 1.4 * min(norms) * ((1 - alpha) * (x - z) / norms[0] + alpha * (y - z) / norms[1])
    np.testing.assert_allclose(OPERATORS["norm_balanced"](a, b, base=base, alpha=alpha), expected, rtol=1e-4, atol=1e-5)


def test_norm_balanced_leaves_the_other_vector_alone_where_one_is_zero() -> None:
    a, _, base = fine_tunes(1, 50)
    expected = base + 0.7 * (a - base)
    torch.testing.assert_close(OPERATORS["norm_balanced"](a, base, base=base), expected)
    torch.testing.assert_close(OPERATORS["norm_balanced"](base, base, base=base), base)


def test_dare_keeps_a_share_and_rescales_it() -> None:
    base = torch.zeros(200_000)
    a = torch.ones_like(base)
    b = 2 * a
    merged = OPERATORS["dare"](a, b, base=base, density=0.25, lam=0.5)
    values, counts = torch.unique(merged, return_counts=True)
    assert values.tolist() == [0.0, 2.0, 4.0, 6.0]  # lam 0.5 at equal weights: half of each, over the density
    shares = (counts / base.numel()).tolist()
    assert shares == pytest.approx([0.75**2, 0.25 * 0.75, 0.75 * 0.25, 0.25**2], abs=0.005)
    assert merged.mean().item() == pytest.approx(1.5, abs=0.02)  # unbiased


def test_dare_draws_follow_the_published_generator() -> None:
    """SplitMix64 in Python integers, bit for bit, from any starting coordinate."""
    key, start = -(2**62) - 12345, 7

    def reference(index: int) -> int:
        mask = 2**64 - 1
        x = (index * 0x9E3779B97F4A7C15 + key) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return (x ^ (x >> 31)) >> 40

    assert dare.draws(key, start, 50, like=torch.zeros(1)).tolist() == [reference(i) for i in range(start, start + 50)]


def test_dare_is_keyed_by_seed_and_tensor_name() -> None:
    a, b, base = fine_tunes(2, 500)
    first = OPERATORS["dare"](a, b, base=base, tensor="x")
    assert torch.equal(first, OPERATORS["dare"](a, b, base=base, tensor="x"))
    assert not torch.equal(first, OPERATORS["dare"](a, b, base=base, tensor="y"))
    assert not torch.equal(first, OPERATORS["dare"](a, b, base=base, tensor="x", seed=1))
    torch.testing.assert_close(OPERATORS["dare"](a, b, base=base, density=1.0), (a + b) / 2)


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds, size=st.integers(1, 200), alpha=st.sampled_from([0.0, 0.125, 0.3, 0.5, 0.7, 1.0]))
@settings(max_examples=15, deadline=None)
def test_operators_mirror(name: str, seed: int, size: int, alpha: float) -> None:
    """o(a, b; α) = o(b, a; 1 − α): one merge labels both orientations."""
    a, b, base = fine_tunes(seed, size)
    forward = OPERATORS[name](a, b, alpha=alpha, base=base, tensor="t")
    backward = OPERATORS[name](b, a, alpha=1 - alpha, base=base, tensor="t")
    torch.testing.assert_close(forward, backward, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("linear", {}),
        ("task_arithmetic", {"lam": 0.5}),
        ("ties_task_vector", {"density": 1.0}),
        ("dare", {"density": 1.0}),
    ],
)
def test_alpha_zero_is_a_and_one_is_b(name: str, params: dict[str, float]) -> None:
    a, b, base = fine_tunes(9, 64)
    torch.testing.assert_close(OPERATORS[name](a, b, alpha=0.0, base=base, **params), a)
    torch.testing.assert_close(OPERATORS[name](a, b, alpha=1.0, base=base, **params), b)


@pytest.mark.parametrize("name", NAMES)
def test_a_merge_of_equals_is_finite_and_has_the_input_shape(name: str) -> None:
    a, _, base = fine_tunes(4, 6, 5)
    for inputs in ((a, a), (a, base), (base, base), (torch.zeros_like(a), torch.zeros_like(a))):
        merged = OPERATORS[name](*inputs, base=base)
        assert merged.shape == (6, 5)
        assert merged.dtype == torch.float32
        assert torch.isfinite(merged).all()
    if not OPERATORS[name].needs_base:
        torch.testing.assert_close(OPERATORS[name](a, a), a)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_merged_in_float32(name: str, dtype: torch.dtype) -> None:
    a, b, base = (t.to(dtype) for t in fine_tunes(6, 200))
    merged = OPERATORS[name](a, b, base=base)
    assert torch.equal(merged, OPERATORS[name](a.float(), b.float(), base=base.float()))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_at_any_number_of_threads_and_in_any_memory_layout(name: str) -> None:
    size = 2 * BLOCK + 4321
    a, b, base = fine_tunes(8, size)
    expected = OPERATORS[name](a, b, base=base, tensor="t")
    shifted = [torch.cat([torch.zeros(3), t])[3:] for t in (a, b, base)]  # other alignment
    torch.set_num_threads(4)
    assert torch.equal(expected, OPERATORS[name](*shifted[:2], base=shifted[2], tensor="t"))


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_left_unchanged(name: str) -> None:
    inputs = fine_tunes(10, 64)
    copies = [t.clone() for t in inputs]
    OPERATORS[name](*inputs[:2], base=inputs[2])
    assert all(torch.equal(x, y) for x, y in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_empty_tensors_stay_empty(name: str) -> None:
    empty = torch.zeros(0, 3)
    assert OPERATORS[name](empty, empty, base=empty).shape == (0, 3)


def test_what_cannot_be_applied_is_refused_by_name() -> None:
    a = torch.ones(3)
    with pytest.raises(OperatorError, match=r"'task_arithmetic' works on task vectors: give the base"):
        OPERATORS["task_arithmetic"](a, a)
    with pytest.raises(OperatorError, match=r"alpha 1.5 lies outside"):
        OPERATORS["linear"](a, a, alpha=1.5)
    with pytest.raises(OperatorError, match=r"no parameter 'tau': it takes none"):
        OPERATORS["linear"](a, a, tau=0.1)
    with pytest.raises(OperatorError, match=r"density = 2 lies outside \[0, 1\]"):
        check_action(parse_action("ties_task_vector@0.5,density=2"))
    with pytest.raises(OperatorError, match=r"'mean' is unknown: choose one of breadcrumbs, dare, linear"):
        check_action(parse_action("mean"))
    with pytest.raises(OperatorError, match=r"different shapes \[\[3\], \[4\]\]"):
        OPERATORS["linear"](a, torch.ones(4))
    check_action(parse_action("slerp@0.3"))
