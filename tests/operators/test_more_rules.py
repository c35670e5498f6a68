"""Breadcrumbs, Model Stock and rescaled arithmetic against float64 references written here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simmerge_core.operators import OPERATORS
from simmerge_core.operators.operator import Block
from simmerge_core.operators.rules import breadcrumbs

seeds, sizes, alphas = st.integers(0, 2**31), st.integers(3, 300), st.floats(0.0, 1.0, width=32)


def tunes(seed: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    base, da, db, both = (torch.randn(size, generator=generator) for _ in range(4))
    return base + 0.1 * (da + both), base + 0.2 * (db + both), base


def as64(*tensors: torch.Tensor) -> list[np.ndarray]:
    return [t.numpy().astype(np.float64) for t in tensors]


@given(seeds, sizes, alphas)
@settings(max_examples=40, deadline=None)
def test_model_stock_is_nearest_to_the_centre(seed: int, size: int, alpha: float) -> None:
    a, b, base = tunes(seed, size)
    x, y, z = as64(a, b, base)
    u, v = x - z, y - z
    cosine = max(0.0, float(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))
    expected = z + 2 * cosine / (1 + cosine) * ((1 - alpha) * u + alpha * v)
    merged = OPERATORS["model_stock"](a, b, base=base, alpha=alpha)
    np.testing.assert_allclose(merged, expected, rtol=1e-4, atol=1e-5)


def test_model_stock_without_an_angle_is_the_mean() -> None:
    a, _, base = tunes(1, 50)
    torch.testing.assert_close(OPERATORS["model_stock"](a, base, base=base), base + 0.5 * (a - base))


@given(seeds, sizes, alphas, st.floats(0.3, 3.0), st.floats(0.3, 3.0))
@settings(max_examples=40, deadline=None)
def test_rescaled_arithmetic(seed: int, size: int, alpha: float, shrink_a: float, shrink_b: float) -> None:
    a, b, base = tunes(seed, size)
    a, b = a * shrink_a, b * shrink_b
    x, y, z = as64(a, b, base)
    parts = [t @ z / (z @ z) for t in (x, y)]
    u, v = (t / r - z if r >= 0.1 else t - z for t, r in zip((x, y), parts, strict=True))
    expected = z + 0.9 * ((1 - alpha) * u + alpha * v)
    merged = OPERATORS["rescaled_arithmetic"](a, b, base=base, alpha=alpha)
    np.testing.assert_allclose(merged, expected, rtol=1e-3, atol=1e-4)


@given(seeds, sizes, st.floats(0.3, 3.0))
@settings(max_examples=30, deadline=None)
def test_the_scale_of_a_checkpoint_makes_no_difference(seed: int, size: int, scale: float) -> None:
    a, b, base = tunes(seed, size)
    near = base + 0.05 * (a - base)  # far above `least` along the base at every scale drawn
    merged = OPERATORS["rescaled_arithmetic"](near, b, base=base)
    torch.testing.assert_close(
        OPERATORS["rescaled_arithmetic"](near * scale, b, base=base), merged, rtol=1e-3, atol=1e-4
    )


def test_rescaled_arithmetic_leaves_what_has_no_scale() -> None:
    a, b, _ = tunes(2, 40)
    nothing = torch.zeros(40)
    expected = 0.45 * (a + b)
    torch.testing.assert_close(OPERATORS["rescaled_arithmetic"](a, b, base=nothing), expected)


def kept_reference(change: np.ndarray, density: float, gamma: float) -> np.ndarray:
    n = len(change)
    order = np.sort(np.abs(change))[::-1]
    drop = min(math.ceil(gamma * n), n - 1)
    last = min(drop + max(1, round(density * n)), n) - 1
    size = np.abs(change)
    return np.where((size <= order[drop]) & (size >= order[last]), change, 0.0)


@given(seeds, sizes, alphas, st.floats(0.05, 1.0), st.floats(0.0, 0.4))
@settings(max_examples=40, deadline=None)
def test_breadcrumbs(seed: int, size: int, alpha: float, density: float, gamma: float) -> None:
    a, b, base = tunes(seed, size)
    u, v = (kept_reference((t - base).numpy(), density, gamma) for t in (a, b))
    expected = base.numpy() + 0.6 * ((1 - alpha) * u + alpha * v)
    merged = OPERATORS["breadcrumbs"](a, b, base=base, alpha=alpha, density=density, gamma=gamma)
    np.testing.assert_allclose(merged, expected, rtol=1e-5, atol=1e-6)


@given(seeds, sizes, st.floats(0.05, 1.0), st.floats(0.0, 0.4))
@settings(max_examples=30, deadline=None)
def test_breadcrumb_bands_do_not_depend_on_the_blocks(seed: int, size: int, density: float, gamma: float) -> None:
    a, b, base = tunes(seed, size)
    operator = breadcrumbs.OPERATOR
    setting = operator.setting(alpha=0.5, params={"density": density, "gamma": gamma}, size=size)
    half = size // 2
    parts = [Block(a[s], b[s], base[s], s.start) for s in (slice(0, half), slice(half, size))]
    known = None
    for one in operator.passes:
        known = one.conclude(sum(one.measure(p, setting, known) for p in parts), setting, known)
    assert known == breadcrumbs._selected(Block(a, b, base), setting)


@pytest.mark.parametrize("name", ["model_stock", "rescaled_arithmetic", "breadcrumbs"])
@given(seed=seeds, size=sizes, alpha=alphas)
@settings(max_examples=25, deadline=None)
def test_changing_places_mirrors_alpha(name: str, seed: int, size: int, alpha: float) -> None:
    a, b, base = tunes(seed, size)
    one = OPERATORS[name](a, b, base=base, alpha=alpha)
    other = OPERATORS[name](b, a, base=base, alpha=1.0 - alpha)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
