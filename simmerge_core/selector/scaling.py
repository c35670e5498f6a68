"""Standardisation and task encoding: raw features → the input x̃ of a model (§2.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simmerge_core.selector.block import FeatureBlock


@dataclass(frozen=True, slots=True)
class Scaler:
    """Centre, scale and clip each feature by training statistics, then append the task's one-hot code c(t).

    Attributes
    ----------
    mean, scale
        (f,) float64, of the training rows only; the scale of a constant feature is 1.
    clip
        Standardised values are clipped to ±clip, so that an unseen regime cannot send a prediction far away.
    tasks
        Tasks with a code, in order; a task that is not among them is encoded as zeros. Empty: no encoding.
    """

    mean: np.ndarray
    scale: np.ndarray
    clip: float
    tasks: tuple[str, ...]

    @classmethod
    def fit(cls, block: FeatureBlock, *, clip: float, encode_task: bool) -> Scaler:
        """Statistics of the training rows in float64."""
        mean = block.x.mean(axis=0)
        scale = block.x.std(axis=0)
        constant = scale <= 1e-12 * np.maximum(1.0, np.abs(mean))
        tasks = tuple(sorted(set(block.tasks.tolist()))) if encode_task else ()
        return cls(mean, np.where(constant, 1.0, scale), clip, tasks)

    @property
    def width(self) -> int:
        """Number of inputs after encoding."""
        return len(self.mean) + len(self.tasks)

    def __call__(self, block: FeatureBlock) -> np.ndarray:
        """(n, width) float64."""
        out = np.empty((len(block), self.width))
        features = len(self.mean)
        np.subtract(block.x, self.mean, out=out[:, :features])
        out[:, :features] /= self.scale
        np.clip(out[:, :features], -self.clip, self.clip, out=out[:, :features])
        for column, task in enumerate(self.tasks):
            out[:, features + column] = block.tasks == task
        return out
