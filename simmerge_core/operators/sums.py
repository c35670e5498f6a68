"""Inner products that have the same bits at any number of threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def inner_products(*pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Inner products of pairs of flat tensors of one size: exact products, accumulated in float64; (pairs,).

    torch divides a reduction between threads only across rows, unless there is one row alone; a second row is always
    there, so that every row is added in one fixed order. BLAS gives no such promise.
    """
    import torch

    first = torch.stack([x for x, _ in pairs]).double()  # (pairs, n)
    second = torch.stack([y for _, y in pairs]).double()
    products = first.mul_(second)
    return products.sum(1) if len(pairs) > 1 else torch.cat((products, products)).sum(1)[:1]
