"""A bandit's posterior mean as a utility model, so that plan search can rank subsets and orders by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from simmerge_core.bandit.encoder import Encoder
from simmerge_core.bandit.levels import level_of
from simmerge_core.bandit.policies import LinearBandit
from simmerge_core.operators.actions import Action, parse_action
from simmerge_core.selector.block import FeatureBlock, block_of
from simmerge_core.selector.prediction import Prediction


@dataclass(frozen=True)
class BanditModel:
    """What a bandit expects of each action that it may choose (`selector.UtilityModel`)."""

    encoder: Encoder
    bandit: LinearBandit

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.bandit.kind

    @property
    def actions(self) -> tuple[Action, ...]:
        """The arms that are not retired."""
        return tuple(map(parse_action, self.bandit.active))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The feature columns that the encoder reads."""
        return self.encoder.feature_names

    def predict(self, features: pl.DataFrame) -> Prediction:
        """Predict for the rows of a `pairwise_features` frame with its `task` column."""
        return self.predict_block(block_of(features, self.feature_names))

    def predict_block(self, block: FeatureBlock) -> Prediction:
        """Posterior means, and deviations times the exploration scale."""
        z = self.encoder(block)
        levels = {task: level_of(self.bandit.levels, ((task, 1.0),)) for task in set(block.tasks.tolist())}
        arms = [self.bandit.arms.index(arm) for arm in self.bandit.active]
        posterior = self.bandit.posterior
        # einsum's order of summation does not depend on the number of threads.
        mean = np.einsum("nd,kd->nk", z, posterior.mean[arms])
        mean += np.array([levels[task] for task in block.tasks.tolist()])[:, None]
        spread = np.empty_like(mean)
        for column, arm in enumerate(arms):
            p = np.einsum("nd,ed->ne", z, posterior.factor[arm])
            spread[:, column] = np.sqrt(np.einsum("ne,ne->n", p, p))
        return Prediction(mean, self.bandit.exploration * spread)
