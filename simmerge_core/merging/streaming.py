"""One tensor of a plan, block by block, with memory bounded by a few blocks.

Every operator works on one tensor at a time, so a k-way plan is evaluated per tensor: a block of step j is combined
from the same block of step j - 1 and of checkpoint j. Steps without statistics need one pass over the files in all.
A step with statistics makes its passes first, over blocks that are combined anew from the inputs (nested
evaluation): nothing intermediate is stored, at the price of reading a tensor again from the page cache. The blocks
are those of the in-memory merge: so are the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from simmerge_core.merging.steps import Step
from simmerge_core.operators.operator import BLOCK, Block

Reader = Callable[[int, int], Tensor]
"""(start, stop) → flat float32 coordinates."""


class TensorMerge:
    """The merge of one tensor.

    Parameters
    ----------
    steps
        The plan's steps, k - 1.
    inputs
        One reader per checkpoint, k; base reader, or None where no step needs it.
    size
        Coordinates of the tensor.
    """

    def __init__(
        self, steps: Sequence[Step], inputs: Sequence[Reader], base: Reader | None, *, name: str, size: int
    ) -> None:
        self._inputs = inputs
        self._base = base
        self._size = size
        self._steps = [(s.operator, s.for_tensor(name, size)) for s in steps]
        self._known: list[Any] = []
        for position, (operator, setting) in enumerate(self._steps):
            # Steps before this one are settled, so its inputs can be evaluated.
            self._known.append(operator.settle(partial(self._blocks, position), setting))

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(start, merged float32 coordinates) in order, to the end of the tensor."""
        for start in range(0, self._size, BLOCK):
            yield start, self._value(len(self._steps), start)

    def _blocks(self, position: int) -> Iterator[Block]:
        for start in range(0, self._size, BLOCK):
            yield self._block(position, start)

    def _block(self, position: int, start: int) -> Block:
        """The inputs of step `position`."""
        stop = min(start + BLOCK, self._size)
        operator = self._steps[position][0]
        base = self._base(start, stop) if operator.needs_base and self._base is not None else None
        return Block(self._value(position, start), self._inputs[position + 1](start, stop), base, start)

    def _value(self, position: int, start: int) -> Tensor:
        """The result of the first `position` steps on one block."""
        if position == 0:
            return self._inputs[0](start, min(start + BLOCK, self._size))
        operator, setting = self._steps[position - 1]
        return operator.combine(self._block(position - 1, start), setting, self._known[position - 1])
