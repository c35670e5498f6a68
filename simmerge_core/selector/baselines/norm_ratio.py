"""The norm-ratio rule: a shrunken expert takes SLERP, a larger one TIES, anything between the best fixed action."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from simmerge_core.errors import SelectionError
from simmerge_core.operators.actions import Action
from simmerge_core.selector.baselines.fixed import BestFixed
from simmerge_core.selector.block import FeatureBlock, block_of
from simmerge_core.selector.prediction import Prediction
from simmerge_core.selector.rows import TrainingRows

_RATIO = "weight_log_norm_ratio"
_THRESHOLDS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)  # |log norm ratio| at which the rule sets in


@dataclass(frozen=True)
class NormRatio:
    """The rule with one threshold, chosen on the training rows.

    Attributes
    ----------
    shrunken, larger
        Index of the action for an expert whose norm is below, above its partner's.
    threshold
        Least |log norm ratio|; below it the best fixed action is taken.
    """

    overall: BestFixed
    shrunken: int
    larger: int
    threshold: float
    name: str = "norm_ratio"
    feature_names: tuple[str, ...] = (_RATIO,)

    @classmethod
    def train(cls, rows: TrainingRows, *, seed: int = 0) -> NormRatio:
        """Choose the threshold with the highest training utility.

        Raises
        ------
        SelectionError
            If the actions hold neither slerp nor ties at alpha 0.5.
        """
        names = [str(a) for a in rows.actions]
        overall = BestFixed.train(rows)
        if "slerp@0.5" not in names and "ties@0.5" not in names:
            raise SelectionError(
                "The norm-ratio rule needs slerp@0.5 or ties@0.5 among the actions: add one, or leave the rule out."
            )
        fixed = names.index(str(overall.action))
        shrunken = names.index("slerp@0.5") if "slerp@0.5" in names else fixed
        larger = names.index("ties@0.5") if "ties@0.5" in names else fixed
        known = rows.of_split("train", "validation")
        block = block_of(known.features, (_RATIO,))
        candidates = [cls(overall, shrunken, larger, t) for t in (*_THRESHOLDS, np.inf)]
        each = np.arange(len(known))
        gains = [known.utilities[each, c.predict_block(block).choice()].mean() for c in candidates]
        return candidates[int(np.argmax(gains))]

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions, in the order of a prediction's columns."""
        return self.overall.actions

    def predict(self, features: pl.DataFrame) -> Prediction:
        """Each action's mean, with the rule's choice raised to the top."""
        return self.predict_block(block_of(features, self.feature_names))

    def predict_block(self, block: FeatureBlock) -> Prediction:
        """Each action's mean, with the rule's choice raised to the top."""
        answer = self.overall.predict_block(block)
        # The ratio is seen from the task's expert; where both or none are, from the first side.
        ratio = np.where(block.b_expert & ~block.a_expert, -block.x[:, 0], block.x[:, 0])
        top = self.overall.mean.max() + 1e-6
        answer.utilities[ratio < -self.threshold, self.shrunken] = top
        answer.utilities[ratio > self.threshold, self.larger] = top
        return answer
