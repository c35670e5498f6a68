"""One thread for small matrix products: they lose more to waiting threads than they gain, and sums keep one order."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()  # finding the libraries takes milliseconds: once per process


def one_blas_thread() -> AbstractContextManager[Any]:
    """Run NumPy's products on the calling thread inside the block; the earlier setting comes back after it."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit
