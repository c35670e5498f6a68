"""What the selector must beat: models with the same interface and far less in them."""

from simmerge_core.selector.baselines.boosting import GradientBoosting
from simmerge_core.selector.baselines.extra_trees import ExtraTrees
from simmerge_core.selector.baselines.fixed import BestFixed, BestFixedPerTask
from simmerge_core.selector.baselines.nearest import NearestNeighbour
from simmerge_core.selector.baselines.norm_ratio import NormRatio
from simmerge_core.selector.baselines.random_choice import Random
from simmerge_core.selector.baselines.ridge import Ridge

__all__ = [
    "BestFixed",
    "BestFixedPerTask",
    "ExtraTrees",
    "GradientBoosting",
    "NearestNeighbour",
    "NormRatio",
    "Random",
    "Ridge",
]
