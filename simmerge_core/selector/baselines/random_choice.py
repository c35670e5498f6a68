"""A random action: the floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from simmerge_core.operators.actions import Action
from simmerge_core.selector.baselines.fixed import BestFixed
from simmerge_core.selector.block import FeatureBlock, block_of
from simmerge_core.selector.config import SelectorConfig
from simmerge_core.selector.prediction import Prediction
from simmerge_core.selector.rows import TrainingRows

_TINY = 1e-6  # utility by which the drawn action leads


@dataclass(frozen=True)
class Random:
    """Every action has the same predicted utility but for one, drawn from a hash of the row and the seed.

    The draw depends on the row's features alone, not on the rows beside it.
    """

    overall: BestFixed
    seed: int
    feature_names: tuple[str, ...]
    name: str = "random"

    @classmethod
    def train(cls, rows: TrainingRows, *, seed: int = 0) -> Random:
        """Nothing is learned but the mean utility."""
        return cls(BestFixed.train(rows), seed, SelectorConfig().feature_names())

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions, in the order of a prediction's columns."""
        return self.overall.actions

    def predict(self, features: pl.DataFrame) -> Prediction:
        """A draw per row."""
        return self.predict_block(block_of(features, self.feature_names))

    def predict_block(self, block: FeatureBlock) -> Prediction:
        """A draw per row."""
        count = len(self.actions)
        bits = np.ascontiguousarray(block.x, dtype="<f8").view(np.uint64)
        odd = np.random.default_rng(self.seed).integers(0, 2**63, size=bits.shape[1], dtype=np.uint64) * 2 + 1
        with np.errstate(over="ignore"):  # multiplication modulo 2⁶⁴ is the hash
            mixed = (bits ^ (bits >> np.uint64(32))) * odd
            draw = (np.bitwise_xor.reduce(mixed, axis=1) >> np.uint64(33)).astype(np.int64) % count
        utilities = np.full((len(block), count), float(self.overall.mean.mean()))
        utilities[np.arange(len(block)), draw] += _TINY
        return Prediction(utilities, np.broadcast_to(self.overall.spread, utilities.shape).copy())
