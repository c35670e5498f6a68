"""The protocol of the experiments: splits, seeds and bars, fixed in a file before any result was looked at."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from simmerge_core.analysis.scores import item_sets_of
from simmerge_core.analysis.units import Target
from simmerge_core.catalog import Catalog
from simmerge_core.errors import SelectionError

PROTOCOL_FILE = Path(__file__).with_name("protocol.yaml")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Least(_Part):
    """What the comparison must rest on: pairs of expert and auxiliary, and configurations (§3.2)."""

    training_pairs: int
    test_pairs: int
    three_way: int
    four_way: int


class CatalogRules(_Part):
    """The catalog that the experiments are about."""

    preset: str
    seed: int
    experts: int
    salt: str
    test_share: float
    validation_share: float
    least: Least


class LargerRules(_Part):
    """The catalog of larger models that the selector is transferred to (§4.4)."""

    preset: str
    seed: int
    least_parameter_ratio: float


class Choices(_Part):
    """How choices are made and scored."""

    item_sets: tuple[str, str]
    within: float
    min_gap: float
    seed: int


class Splits(_Part):
    """The harder splits."""

    held_out_folds: int


class Noise(_Part):
    """The bootstrap."""

    draws: int
    seed: int


class ForwardSelection(_Part):
    """How the few actions that carry the headroom are found."""

    splits: tuple[str, ...]
    most: int


class Actions(_Part):
    """Targets of the action sets."""

    paper: Literal["expert_task"]
    extended: Literal["both_tasks"]
    wide: Literal["both_tasks"]
    forward_selection: ForwardSelection

    @property
    def targets(self) -> dict[str, Target]:
        """Target by action set."""
        return {"paper": self.paper, "extended": self.extended, "wide": self.wide}


class BanditBars(_Part):
    """Greatest regret of LinTS after all merges, as a share of another policy's."""

    regret_of_uniform: float
    regret_of_frozen: float


class BanditRules(_Part):
    """The online experiment (§4.5)."""

    shift: str
    merges: dict[int, int]
    seeds: int
    band: tuple[float, float]
    pair_rounds: int
    bars: BanditBars


class Protocol(_Part):
    """Everything that was fixed beforehand; `protocol.yaml` says why."""

    version: int
    catalog: CatalogRules
    larger: LargerRules
    choices: Choices
    splits: Splits
    noise: Noise
    actions: Actions
    budgets: tuple[int, ...]
    training_sizes: tuple[int, ...]
    training_draws: int
    probe_sizes: tuple[int, ...]
    bandit: BanditRules
    bars: dict[str, float]

    def check(self, catalog: Catalog) -> None:
        """Refuse a catalog whose splits are not the protocol's.

        Raises
        ------
        SelectionError
            Naming the setting, its value and the one that was fixed.
        """
        rules, labels = self.catalog, catalog.labels
        for name, value, fixed in (
            ("labels.salt", labels.salt, rules.salt),
            ("labels.test_share", labels.test_share, rules.test_share),
            ("labels.validation_share", labels.validation_share, rules.validation_share),
            ("item_sets", item_sets_of(catalog), self.choices.item_sets),
        ):
            if value != fixed:
                raise SelectionError(
                    f"The catalog {catalog.path} has {name} = {value}, but the experiments were fixed at {fixed}: "
                    "restore it, or the figures cannot be compared."
                )

    def check_extent(self, extent: Least) -> None:
        """Refuse a comparison that rests on less than the protocol asks for (§3.2).

        Raises
        ------
        SelectionError
            Naming what there is too little of.
        """
        for name, wanted in self.catalog.least.model_dump().items():
            found = getattr(extent, name)
            if found < wanted:
                raise SelectionError(
                    f"There are {found} {name.replace('_', ' ')}, and the experiments rest on at least {wanted}: build "
                    f"the catalog by `simmerge demo --preset {self.catalog.preset}`, or pass --own-catalog for another."
                )


@cache
def protocol() -> Protocol:
    """The protocol as the repository holds it."""
    return Protocol.model_validate(yaml.safe_load(PROTOCOL_FILE.read_text("utf-8")))
