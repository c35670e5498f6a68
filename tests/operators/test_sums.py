"""Inner products against exact sums, at any number of threads."""

from __future__ import annotations

import math

import pytest
import torch

from simmerge_core.operators.sums import inner_products


@pytest.mark.parametrize("size", [1, 7, 1000, 33_000, 131_072])
def test_inner_products_are_exact_to_float64_and_independent_of_threads(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    x, y = torch.randn(2, size, generator=generator)
    expected = [math.fsum(p * q for p, q in zip(u.tolist(), v.tolist(), strict=True)) for u, v in ((x, x), (x, y))]
    alone, both = inner_products((x, y)), inner_products((x, x), (x, y))
    assert both.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-10)
    assert alone[0] == both[1]
    for threads in (2, 3, 8):
        torch.set_num_threads(threads)
        assert torch.equal(both, inner_products((x, x), (x, y)))
        assert torch.equal(alone, inner_products((x, y)))
