"""Settings of the selector's training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from simmerge_core.errors import SelectionError
from simmerge_core.features.columns import FEATURE_GROUPS, FEATURES


@dataclass(frozen=True)
class SelectorConfig:
    """What is tuned (§3.5: width, learning rate, batch size, dropout) and what is fixed.

    Attributes
    ----------
    groups
        Feature groups to read (`features.columns.FEATURE_GROUPS`); None reads all.
    scale_free
        Leave out features in absolute units (distance, norms), whose relative and logarithmic forms stay: a selector
        then means the same on a model of another size (§4.4).
    encode_task
        Append the one-hot task code c(t) (§2.2).
    widths, learning_rates, dropouts, batch_sizes
        The grid; every combination is tried on the validation rows.
    weight_decay
        Decoupled (AdamW): each step shrinks the weights by learning rate × weight decay.
    members
        Networks in the ensemble.
    tuning_members
        Networks per combination while tuning.
    epochs, patience
        Most passes over the rows, and passes without a better validation loss before a network stops.
    clip
        Bound on standardised features.
    heads
        ``separate``: one ensemble for the level (mean over actions) and one for the differences between actions;
        ``shared``: one network for both.
    interval_level
        Share of new merges that the calibrated intervals are to hold, in (0, 1).
    unseen_folds
        Folds of checkpoints, each held out by a network of its own, from whose errors the intervals for checkpoints
        without labels are made; fewer where there are few checkpoints, 0 for none.
    """

    groups: tuple[str, ...] | None = None
    scale_free: bool = True
    encode_task: bool = True
    widths: tuple[int, ...] = (32, 64)
    learning_rates: tuple[float, ...] = (2e-3, 6e-3)
    dropouts: tuple[float, ...] = (0.1, 0.3)
    batch_sizes: tuple[int, ...] = (64,)
    weight_decay: float = 1.0
    members: int = 8
    tuning_members: int = 2
    epochs: int = 50
    patience: int = 15
    clip: float = 5.0
    heads: str = "separate"
    interval_level: float = 0.9
    unseen_folds: int = 5

    def __post_init__(self) -> None:
        unknown = [g for g in self.groups or () if g not in FEATURE_GROUPS]
        if unknown:
            raise SelectionError(f"Feature groups {unknown} do not exist: choose among {sorted(FEATURE_GROUPS)}.")
        if self.heads not in ("separate", "shared"):
            raise SelectionError(f"heads is {self.heads!r}: choose 'separate' or 'shared'.")
        if self.members < 2:
            raise SelectionError(f"An ensemble of {self.members} has no spread: give at least 2 members.")
        grid = (self.widths, self.learning_rates, self.dropouts, self.batch_sizes)
        if any(not axis or min(axis) < 0 for axis in grid) or min(self.widths) < 1 or min(self.batch_sizes) < 1:
            raise SelectionError("Every axis of the tuning grid needs at least one value, and none may be negative.")
        if max(self.dropouts) >= 1.0:
            raise SelectionError(f"Dropout {max(self.dropouts):g} removes every unit: give values below 1.")
        if not 0.0 < self.interval_level < 1.0:
            raise SelectionError(f"No interval has the level {self.interval_level:g}: give a share between 0 and 1.")
        if self.unseen_folds < 0 or self.unseen_folds == 1:
            raise SelectionError(f"unseen_folds is {self.unseen_folds}: give at least 2, or 0 for none.")

    def feature_names(self) -> tuple[str, ...]:
        """The feature columns that this configuration reads, in table order."""
        groups = set(FEATURE_GROUPS if self.groups is None else self.groups)
        return tuple(c.name for c in FEATURES if c.group in groups and not (self.scale_free and c.unit == "1"))

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SelectorConfig:
        """The inverse of `as_json`; unknown keys are refused."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(value) - known)
        if unknown:
            raise SelectionError(
                f"The selector's configuration has unknown settings {unknown}: it is of another version."
            )
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        return cls(**settings)
