"""Torch on one thread for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run the body with one torch thread.

    How a matrix product is split among threads changes the order of its additions, and so its last bits. Results that
    are stored are therefore computed on one thread; parallelism comes from processes, or from the accelerator.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
