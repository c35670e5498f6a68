"""The selector's networks in float32, folded so that a step costs two small matrix products per head and little else.

The task's code is part of the first bias, which is one more row of the first layer; the mean over the members, the
decoding of level and differences, and the choice of columns are all linear, and are part of the last layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simmerge_core.planning.rounding import Range, gamma
from simmerge_core.selector.mlp import Selector

PIECE = 128  # steps per product: its hidden layers, 1 MB in all at the default size, stay in the cache


@dataclass(frozen=True, slots=True)
class _Head:
    """M networks of one head, float32.

    Attributes
    ----------
    first
        Per task (M, f + 1, h): the weights of the features, and as last row the bias with the task's code.
    second, bias
        (M, h, h) and (M · h,).
    last
        Per choice of columns (M · h, A): mean over members, decoding and columns in one.
    """

    first: tuple[np.ndarray, ...]
    second: np.ndarray
    bias: np.ndarray
    last: tuple[np.ndarray, ...]


class Folded:
    """All heads of a selector for several tasks and choices of columns.

    Parameters
    ----------
    tasks
        T tasks.
    columns
        Choices of the selector's actions, each (A,) indices: one per orientation.
    """

    def __init__(self, model: Selector, tasks: Sequence[str], columns: Sequence[np.ndarray]) -> None:
        self._centre = model.targets.level_mean + model.targets.difference_mean  # (all actions,)
        self._folds = []
        for name, weights in model.networks.items():
            last = _decoded(model, name)
            self._centre = self._centre + last[:, -1].sum(axis=0)
            self._folds.append((weights, [_first_bias(model, weights, task) for task in tasks], last[:, :-1]))
        self._heads = [_head(model, *fold, columns) for fold in self._folds]
        self._centres = [self._centre[c].astype(np.float32) for c in columns]

    def error(self, t: int, inputs: Range) -> float:
        """How far a utility on task t is from that in exact arithmetic at most, over all inputs (f,) in a range."""
        out = gamma(len(self._folds) + 2) * np.abs(self._centre)
        for weights, biases, last in self._folds:
            first = inputs.linear(weights["w1"][:, : len(inputs.low)].astype(np.float64), biases[t]).relu()  # (M, h)
            second = first.linear(weights["w2"].astype(np.float64), weights["b2"][:, 0].astype(np.float64)).relu()
            members = Range(second.low.reshape(-1), second.high.reshape(-1), second.error.reshape(-1))
            flat = last.reshape(-1, last.shape[2])
            out = out + members.linear(flat, np.zeros(flat.shape[1])).error
        return float(out.max())

    def pieces(self, t: int, choice: int) -> Pieces:
        """A forward pass on task t with one choice of columns; not to be shared by threads."""
        return Pieces(self._heads, self._centres[choice], t, choice)


class Pieces:
    """The forward pass, `PIECE` rows at most at a time; buffers are used again for the next piece."""

    def __init__(self, heads: Sequence[_Head], centre: np.ndarray, t: int, choice: int) -> None:
        self._heads, self._centre, self._t, self._choice = heads, centre, t, choice
        shapes = [head.second.shape for head in heads]
        self._x = np.ones((PIECE, heads[0].first[t].shape[1]), dtype=np.float32)
        self._first = [np.empty((m, PIECE, h), dtype=np.float32) for m, h, _ in shapes]
        self._second = [np.empty((PIECE, m, h), dtype=np.float32) for m, h, _ in shapes]

    @property
    def inputs(self) -> np.ndarray:
        """(PIECE, f) float32, to be filled with clipped features."""
        return self._x[:, :-1]  # the last column stays 1, for the bias

    def forward(self, out: np.ndarray) -> None:
        """Fill `out` (n, A) float32 with the utilities of the first n inputs."""
        n = len(out)
        out[:] = self._centre
        for number, head in enumerate(self._heads):
            first, second = self._first[number][:, :n], self._second[number][:n]
            np.matmul(self._x[:n], head.first[self._t], out=first)
            np.maximum(first, 0, out=first)
            # Member by row turns into row by member on the way out, so that all members share one last product.
            np.matmul(first, head.second, out=second.transpose(1, 0, 2))
            flat = second.reshape(n, -1)
            flat += head.bias
            np.maximum(flat, 0, out=flat)
            out += flat @ head.last[self._choice]


def _decoded(model: Selector, name: str) -> np.ndarray:
    """(M, h + 1, actions) float64: a head's last layer, its bias as last row, such that utilities are plain sums."""
    weights, targets = model.networks[name], model.targets
    last = np.concatenate([weights["w3"], weights["b3"]], axis=1).astype(np.float64)  # (M, h + 1, o)
    out = np.zeros((*last.shape[:2], len(model.actions)))
    if name != "difference":
        out += targets.level_scale * last[:, :, :1]
    if name != "level":
        difference = last[:, :, 1:] if name == "shared" else last
        out += targets.difference_scale * (difference - difference.mean(axis=2, keepdims=True))
    return out / len(last)


def _first_bias(model: Selector, weights: Mapping[str, np.ndarray], task: str) -> np.ndarray:
    """(M, h) float64: the first bias with the weights of the task's code; a task without a code adds nothing."""
    bias = weights["b1"][:, 0].astype(np.float64)
    if task in model.tasks:
        bias += weights["w1"][:, len(model.feature_names) + model.tasks.index(task)]
    return bias


def _head(
    model: Selector,
    weights: Mapping[str, np.ndarray],
    biases: Sequence[np.ndarray],
    last: np.ndarray,
    columns: Sequence[np.ndarray],
) -> _Head:
    features = weights["w1"][:, : len(model.feature_names)]
    flat = last.reshape(-1, last.shape[2])
    return _Head(
        tuple(np.concatenate([features, bias[:, None]], axis=1).astype(np.float32) for bias in biases),
        weights["w2"].astype(np.float32),
        weights["b2"].reshape(-1).astype(np.float32),
        tuple(np.ascontiguousarray(flat[:, c], dtype=np.float32) for c in columns),
    )
