"""What an operator is: statistics that are sums over blocks, then a rule for each coordinate.

Every tensor is cut into blocks of `BLOCK` coordinates, the same ones whether it lies in memory or streams from a
file. An operator first makes its passes: each measures every block, the measures are added in block order in
float64 (or int64 for counts), and the total is concluded into what the next pass and the rule may know. Then the
rule combines block by block, in float32. So both ways give the same bits, and memory is bounded by a few blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simmerge_core.errors import OperatorError

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 17
"""Coordinates per block: 512 KiB in float32, so that a block and its temporaries stay in cache."""

_EMPTY: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an operator.

    Attributes
    ----------
    default, low, high
        Value when left out, and the closed range that is accepted.
    """

    default: float
    low: float
    high: float
    description: str


@dataclass(frozen=True, slots=True)
class Setting:
    """An operator's arguments for one tensor.

    Attributes
    ----------
    alpha
        Weight of b, in [0, 1].
    params
        Every parameter by name, defaults filled in.
    size
        Coordinates of the whole tensor.
    tensor
        The tensor's name; random operators key their draws by it.
    """

    alpha: float
    params: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    size: int = 0
    tensor: str = ""


@dataclass(slots=True)
class Block:
    """Coordinates [start, start + n) of both inputs (and the base), flat, float32, to be left unchanged."""

    a: Tensor
    b: Tensor
    base: Tensor | None
    start: int = 0

    @property
    def origin(self) -> Tensor:
        """The base's coordinates, for operators that need the base."""
        assert self.base is not None
        return self.base


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over all blocks.

    Attributes
    ----------
    measure
        (block, setting, known) → tensor that may be summed over blocks; float64, or int64 for counts.
    conclude
        (total, setting, known) → what is known from here on.
    """

    measure: Callable[[Block, Setting, Any], Tensor]
    conclude: Callable[[Tensor, Setting, Any], Any]


@dataclass(frozen=True, eq=False)
class Operator:
    """A binary merge rule o(a, b; α) on corresponding tensors.

    Attributes
    ----------
    name
        As written in actions.
    summary, citation
        One line for listings; where the rule comes from.
    combine
        (block, setting, known) → merged float32 coordinates of the block, coordinate by coordinate.
    passes
        Statistics that `combine` needs; none for an elementwise operator.
    shortcut
        (block, setting) → what the passes would conclude, for a tensor that is one block and where that is quicker.
    needs_base
        Whether it reads the base.
    linear
        Whether the result is a linear combination of its inputs once the statistics are known.
    params
        Parameters by name.
    mergekit
        The nearest method of mergekit, None where there is none.
    mergekit_note
        How that method differs, empty where it does not.
    """

    name: str
    summary: str
    citation: str
    combine: Callable[[Block, Setting, Any], Tensor]
    passes: tuple[Pass, ...] = ()
    shortcut: Callable[[Block, Setting], Any] | None = None
    needs_base: bool = False
    linear: bool = False
    params: Mapping[str, Parameter] = field(default_factory=dict)
    mergekit: str | None = None
    mergekit_note: str = ""

    @property
    def elementwise(self) -> bool:
        """Whether each coordinate of the result depends on that coordinate alone."""
        return not self.passes

    def setting(self, *, alpha: float, params: Mapping[str, float], size: int = 0, tensor: str = "") -> Setting:
        """Checked arguments with defaults filled in.

        Raises
        ------
        OperatorError
            If alpha or a parameter is out of range or unknown.
        """
        if not 0.0 <= alpha <= 1.0:
            raise OperatorError(
                f"Operator {self.name!r}: alpha {alpha:g} lies outside [0, 1]; alpha is the weight of the second "
                "checkpoint."
            )
        for name, value in params.items():
            known = self.params.get(name)
            if known is None:
                has = ", ".join(sorted(self.params)) or "none"
                raise OperatorError(f"Operator {self.name!r} has no parameter {name!r}: it takes {has}.")
            if not known.low <= value <= known.high:
                raise OperatorError(
                    f"Operator {self.name!r}: {name} = {value:g} lies outside [{known.low:g}, {known.high:g}]."
                )
        filled = {name: float(params.get(name, p.default)) for name, p in self.params.items()}
        return Setting(float(alpha), filled, size, tensor)

    def settle(self, blocks: Callable[[], Iterable[Block]], setting: Setting) -> Any:
        """Make the passes; `blocks` is called once per pass and gives the blocks in order."""
        known: Any = None
        if self.shortcut is not None and setting.size <= BLOCK:
            return self.shortcut(next(iter(blocks())), setting) if setting.size else None
        for one in self.passes:
            total: Tensor | None = None
            for block in blocks():
                part = one.measure(block, setting, known)
                total = part if total is None else total + part
            if total is not None:
                known = one.conclude(total, setting, known)
        return known

    def __call__(
        self, a: Tensor, b: Tensor, *, alpha: float = 0.5, base: Tensor | None = None, tensor: str = "", **params: float
    ) -> Tensor:
        """Merge one tensor.

        Parameters
        ----------
        a, b
            Tensors of one shape, any float dtype, finite.
        alpha
            Weight of `b`, in [0, 1].
        base
            The common ancestor's tensor; needed where `needs_base`.
        tensor
            Its name, for operators that draw random numbers.

        Returns
        -------
        Tensor
            float32, of the same shape.

        Raises
        ------
        OperatorError
            If shapes differ, the base is missing, or a parameter is unknown or out of range.
        """
        setting = self.setting(alpha=alpha, params=params, size=a.numel(), tensor=tensor)
        if self.needs_base and base is None:
            raise OperatorError(
                f"Operator {self.name!r} works on task vectors: give the base that both checkpoints were tuned from."
            )
        if a.shape != b.shape or (base is not None and a.shape != base.shape):
            shapes = [list(t.shape) for t in (a, b, base) if t is not None]
            raise OperatorError(
                f"Operator {self.name!r}: the tensors have different shapes {shapes} and cannot be merged."
            )
        return self.apply(a, b, base if self.needs_base else None, setting)

    def apply(self, a: Tensor, b: Tensor, base: Tensor | None, setting: Setting) -> Tensor:
        """Merge one tensor under a checked setting; the inner loop of `__call__`."""
        shape, size = a.shape, setting.size
        a, b = _flat(a), _flat(b)
        base = None if base is None else _flat(base)
        if size == 0:
            return a.reshape(shape)
        if size <= BLOCK:
            only = Block(a, b, base)
            known = self.settle(lambda: (only,), setting)
            return self.combine(only, setting, known).reshape(shape)

        def blocks() -> Iterator[Block]:
            for start in range(0, size, BLOCK):
                part = slice(start, start + BLOCK)
                yield Block(a[part], b[part], None if base is None else base[part], start)

        known = self.settle(blocks, setting)
        merged = a.new_empty(size)
        for block in blocks():
            merged[block.start : block.start + BLOCK] = self.combine(block, setting, known)
        return merged.reshape(shape)


def _flat(values: Tensor) -> Tensor:
    if values.requires_grad:
        values = values.detach()
    return values.reshape(-1).float()
