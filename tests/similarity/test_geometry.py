"""Lengths and angles from products, against brute force on the vectors themselves."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simmerge_core.similarity.geometry import FLOOR, Geometry

vectors = st.lists(st.integers(-8, 8).map(float), min_size=3, max_size=3).map(np.array)


def _values(x: np.ndarray, y: np.ndarray, o: np.ndarray) -> dict[str, float]:
    products = {"aa": x @ x, "bb": y @ y, "ab": x @ y, "ao": x @ o, "bo": y @ o, "oo": o @ o}
    frame = pl.DataFrame({name: [float(value)] for name, value in products.items()})
    g = Geometry(frame)
    values = {
        "cosine": g.cosine,
        "l2": g.l2,
        "norm_a": g.norm_a,
        "norm_b": g.norm_b,
        "task_cosine": g.task_cosine,
        "l2_relative": g.l2_relative,
        "log_ratio": g.log_ratio(g.norm_a, g.norm_b),
        "relative_norm": g.relative_to_base(g.task_norm_a),
    }
    return {name: float(value[0]) for name, value in values.items()}


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    if not x.any() or not y.any():
        return float(not x.any() and not y.any())
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


@settings(deadline=None, max_examples=40)
@given(x=vectors, y=vectors, o=vectors)
def test_vectors_of_whole_numbers(x: np.ndarray, y: np.ndarray, o: np.ndarray) -> None:
    got = _values(x, y, o)
    a, b = o + x, o + y
    assert got["l2"] == pytest.approx(np.linalg.norm(a - b), abs=1e-6)
    assert got["norm_a"] == pytest.approx(np.linalg.norm(a), abs=1e-6)
    assert got["norm_b"] == pytest.approx(np.linalg.norm(b), abs=1e-6)
    assert got["cosine"] == pytest.approx(_cosine(a, b), abs=1e-12)
    assert got["task_cosine"] == pytest.approx(_cosine(x, y), abs=1e-12)
    if a.any() and b.any():
        norms = np.linalg.norm(a), np.linalg.norm(b)
        assert got["l2_relative"] == pytest.approx(np.linalg.norm(a - b) / math.sqrt(norms[0] * norms[1]), abs=1e-9)
        assert got["log_ratio"] == pytest.approx(math.log(norms[0] / norms[1]), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(x=vectors, y=vectors, o=vectors, scale=st.floats(1e-8, 1e8))
def test_always_finite_and_within_bounds(x: np.ndarray, y: np.ndarray, o: np.ndarray, scale: float) -> None:
    got = _values(scale * x, y, o)
    assert all(math.isfinite(value) for value in got.values())
    assert -1 <= got["cosine"] <= 1
    assert -1 <= got["task_cosine"] <= 1
    assert got["l2"] >= 0
    assert abs(got["log_ratio"]) <= -math.log(FLOOR) + 1e-9
    swapped = _values(y, scale * x, o)
    for name in ("cosine", "l2", "task_cosine", "l2_relative"):
        assert swapped[name] == pytest.approx(got[name], rel=1e-9, abs=1e-12)
    assert swapped["log_ratio"] == pytest.approx(-got["log_ratio"], abs=1e-12)
