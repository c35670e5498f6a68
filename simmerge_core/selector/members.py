"""Many small MLPs trained at once: member m is slice m of stacked tensors, so that one matrix product serves all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

LAYERS = ("w1", "b1", "w2", "b2", "w3", "b3")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters of one member (§3.5)."""

    width: int
    learning_rate: float
    dropout: float


@dataclass(frozen=True, slots=True)
class Fit:
    """M trained members.

    Attributes
    ----------
    weights
        w1 (M, f, h), b1 (M, 1, h), w2 (M, h, h), b2 (M, 1, h), w3 (M, h, o), b3 (M, 1, o), float32, of each member's
        best epoch.
    loss
        (M,) mean squared error on the member's held-out rows at that epoch.
    epoch
        (M,) that epoch, from 1; 0 means that the zero prediction was never beaten.
    """

    weights: dict[str, np.ndarray]
    loss: np.ndarray
    epoch: np.ndarray


def forward(weights: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """(M, n, o) outputs of every member for x (n, f), in the dtype of the weights; two ReLU layers (§3.5)."""
    h = np.matmul(x, weights["w1"])  # (M, n, h)
    h += weights["b1"]
    np.maximum(h, 0, out=h)
    h = np.matmul(h, weights["w2"])  # (M, n, h)
    h += weights["b2"]
    np.maximum(h, 0, out=h)
    return np.matmul(h, weights["w3"]) + weights["b3"]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are split among threads: with one thread the same input gives the same bytes on any setting."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit_members(
    x: np.ndarray,
    y: np.ndarray,
    *,
    recipes: list[Recipe],
    held_out: np.ndarray,
    batch_size: int,
    epochs: int,
    patience: int,
    weight_decay: float,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> Fit:
    """Train one MLP per recipe on the rows it does not hold out, stopping early on those it does.

    The learning rate falls to zero along a cosine; the weights of the best epoch are kept.

    Parameters
    ----------
    x
        (n, f) standardised inputs.
    y
        (n, o) standardised targets with mean about 0.
    recipes
        M recipes.
    held_out
        (M, n) bool: the rows that stop the member early; it never fits them.
    """
    import torch

    with _one_thread():
        return _fit(
            torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)),
            torch.from_numpy(np.ascontiguousarray(y, dtype=np.float32)),
            recipes=recipes,
            held_out=torch.from_numpy(np.ascontiguousarray(held_out)),
            batch_size=batch_size,
            epochs=epochs,
            patience=patience,
            weight_decay=weight_decay,
            seed=seed,
            progress=progress,
        )


def _initial(features: int, hidden: int, outputs: int, widths: torch.Tensor, generator: torch.Generator) -> Stack:
    """He initialisation; units beyond a member's width start at zero and receive no gradient, so they stay there."""
    import torch

    members = len(widths)
    units = torch.arange(hidden) < widths[:, None]  # (M, h)
    stack = Stack.zeros(members, features, hidden, outputs)
    w1, _, w2, _, w3, _ = stack.views

    def normal(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(members, rows, columns, generator=generator)

    fan = widths.float()[:, None, None]
    w1.copy_(normal(features, hidden) * (2.0 / features) ** 0.5 * units[:, None, :])
    w2.copy_(normal(hidden, hidden) * (2.0 / fan).sqrt() * units[:, None, :] * units[:, :, None])
    # The last layer starts near zero: the first prediction is the training mean of every action (best fixed).
    w3.copy_(normal(hidden, outputs) * 0.1 / fan.sqrt() * units[:, :, None])
    return stack


@dataclass(frozen=True, slots=True)
class Stack:
    """Parameters (or gradients) of M networks: one flat (M, P) buffer and the six layers as views of it."""

    flat: torch.Tensor
    views: tuple[torch.Tensor, ...]

    @classmethod
    def zeros(cls, members: int, features: int, hidden: int, outputs: int) -> Stack:
        """All zero."""
        import torch

        shapes = ((features, hidden), (1, hidden), (hidden, hidden), (1, hidden), (hidden, outputs), (1, outputs))
        flat = torch.zeros(members, sum(r * c for r, c in shapes))
        views, at = [], 0
        for rows, columns in shapes:
            views.append(flat[:, at : at + rows * columns].view(members, rows, columns))
            at += rows * columns
        return cls(flat, tuple(views))


def _network(x: torch.Tensor, weights: tuple[torch.Tensor, ...]) -> torch.Tensor:
    import torch

    w1, b1, w2, b2, w3, b3 = weights
    h = torch.baddbmm(b1, x, w1).relu_()  # (M, n, h)
    h = torch.baddbmm(b2, h, w2).relu_()  # (M, n, h)
    return torch.baddbmm(b3, h, w3)  # (M, n, o)


def loss_gradient(
    x: torch.Tensor,
    y: torch.Tensor,
    row_weight: torch.Tensor,
    weights: tuple[torch.Tensor, ...],
    gradients: tuple[torch.Tensor, ...],
    masks: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Fill `gradients` with those of each member's mean squared error; written out, since autograd costs twice as much.

    Parameters
    ----------
    x, y
        (M, B, f) inputs and (M, B, o) targets.
    row_weight
        (M, B); the loss of a member is Σ row_weight · mean over outputs of the squared error.
    masks
        Dropout factors (M, B, h) of both hidden layers.
    """
    import torch

    w1, b1, w2, b2, w3, b3 = weights
    h1 = torch.baddbmm(b1, x, w1).relu_().mul_(masks[0])  # (M, B, h)
    h2 = torch.baddbmm(b2, h1, w2).relu_().mul_(masks[1])  # (M, B, h)
    d = torch.baddbmm(b3, h2, w3).sub_(y).mul_((2.0 / y.shape[2]) * row_weight[:, :, None])  # (M, B, o)
    torch.bmm(h2.transpose(1, 2), d, out=gradients[4])
    torch.sum(d, dim=1, keepdim=True, out=gradients[5])
    d = torch.bmm(d, w3.transpose(1, 2)).mul_(masks[1]).mul_(h2 > 0)  # (M, B, h)
    torch.bmm(h1.transpose(1, 2), d, out=gradients[2])
    torch.sum(d, dim=1, keepdim=True, out=gradients[3])
    d = torch.bmm(d, w2.transpose(1, 2)).mul_(masks[0]).mul_(h1 > 0)  # (M, B, h)
    torch.bmm(x.transpose(1, 2), d, out=gradients[0])
    torch.sum(d, dim=1, keepdim=True, out=gradients[1])


def _fit(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    recipes: list[Recipe],
    held_out: torch.Tensor,
    batch_size: int,
    epochs: int,
    patience: int,
    weight_decay: float,
    seed: int,
    progress: Callable[[float], None] | None,
) -> Fit:
    import torch

    generator = torch.Generator().manual_seed(seed)
    members, rows = held_out.shape
    hidden = max(recipe.width for recipe in recipes)
    weights = _initial(x.shape[1], hidden, y.shape[1], torch.tensor([r.width for r in recipes]), generator)
    gradient, moment, square, best = (Stack.zeros(members, x.shape[1], hidden, y.shape[1]) for _ in range(4))
    rate = torch.tensor([r.learning_rate for r in recipes])[:, None]
    dropout = _Dropout([r.dropout for r in recipes], hidden, seed=seed)
    fitted = (~held_out).float()
    everything = x.expand(members, -1, -1)
    best_loss = _validation_loss(torch.zeros(members, rows, y.shape[1]), y, held_out)
    best_epoch = torch.zeros(members, dtype=torch.int64)
    step = 0
    steps = epochs * -(-rows // batch_size)
    for epoch in range(1, epochs + 1):
        order = torch.rand(members, rows, generator=generator).argsort(dim=1)  # (M, n)
        for start in range(0, rows, batch_size):
            index = order[:, start : start + batch_size]  # (M, B)
            weight = fitted.gather(1, index)  # (M, B)
            weight /= weight.sum(dim=1, keepdim=True).clamp_min_(1.0)
            loss_gradient(
                x[index],
                y[index],
                weight,
                weights.views,
                gradient.views,
                (dropout(index.shape[1]), dropout(index.shape[1])),
            )
            step += 1
            cosine = 0.5 * (1.0 + math.cos(math.pi * step / steps))
            _adamw(
                weights.flat, gradient.flat, moment.flat, square.flat, rate=rate * cosine, decay=weight_decay, step=step
            )
        current = _validation_loss(_network(everything, weights.views), y, held_out)
        better = current < best_loss
        best_loss = torch.where(better, current, best_loss)
        best_epoch = torch.where(better, epoch, best_epoch)
        best.flat[better] = weights.flat[better]
        if progress is not None:
            progress(epoch / epochs)
        if bool((epoch - best_epoch >= patience).all()):
            break
    stacked = {name: value.numpy().copy() for name, value in zip(LAYERS, best.views, strict=True)}
    return Fit(stacked, best_loss.numpy().copy(), best_epoch.numpy().copy())


class _Dropout:
    """Inverted dropout with rates in 256ths: a random byte per unit is several times cheaper than a random float."""

    def __init__(self, rates: list[float], hidden: int, *, seed: int) -> None:
        import torch

        self._bytes = np.random.default_rng([seed, 1])
        self._least = torch.tensor([round(256 * r) for r in rates], dtype=torch.uint8)[:, None, None]
        self._scale = 256.0 / (256.0 - self._least.float())
        self._hidden = hidden

    def __call__(self, rows: int) -> torch.Tensor:
        """(M, rows, h) factors: 0 for a dropped unit, else the inverse of the share that is kept."""
        import torch

        drawn = self._bytes.integers(0, 256, size=(len(self._least), rows, self._hidden), dtype=np.uint8)
        return (torch.from_numpy(drawn) >= self._least) * self._scale


def _validation_loss(output: torch.Tensor, y: torch.Tensor, held_out: torch.Tensor) -> torch.Tensor:
    """(M,) mean squared error over each member's held-out rows."""
    error = (output - y).square().mean(dim=2)  # (M, n)
    return (error * held_out).sum(dim=1) / held_out.sum(dim=1).clamp_min(1)


def _adamw(
    weights: torch.Tensor,
    gradient: torch.Tensor,
    moment: torch.Tensor,
    square: torch.Tensor,
    *,
    rate: torch.Tensor,
    decay: float,
    step: int,
) -> None:
    """One step of Adam with decoupled weight decay on (M, P) buffers; each member has its own learning rate (M, 1)."""
    moment.lerp_(gradient, 0.1)
    square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    denominator = square.sqrt().mul_((1.0 - 0.999**step) ** -0.5).add_(1e-8)
    weights.mul_(1.0 - rate * decay)
    weights.addcdiv_(moment * (rate / (1.0 - 0.9**step)), denominator, value=-1.0)
