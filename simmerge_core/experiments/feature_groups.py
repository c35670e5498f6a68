"""Which signals the choice rests on: feature groups alone, left out, and the task code (App. F.1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from simmerge_core.experiments.data import Progress, part_of
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.held_out import held_out_variants
from simmerge_core.experiments.pairs import TARGETS
from simmerge_core.experiments.result import Result
from simmerge_core.experiments.variants import Variant, compare_variants
from simmerge_core.features.columns import FEATURE_GROUPS, PAPER_GROUPS
from simmerge_core.selector import SelectorConfig

ALONE: dict[str, tuple[str, ...]] = {
    "KL alone": ("kl",),
    "behaviour alone": ("kl", "activation", "attention"),
    "weights alone": ("weight",),
    "the paper's": PAPER_GROUPS,
    "the paper's + per module": (*PAPER_GROUPS, "weight_module"),
}
"""Named sets of groups; the default reads all."""

WITHOUT_CODE = "without task code"


def variants(settings: SelectorConfig) -> list[Variant]:
    """Groups alone, every group left out, and no task code, in settings that are otherwise the default."""
    found = [Variant(name, config=replace(settings, groups=groups)) for name, groups in ALONE.items()]
    for group in FEATURE_GROUPS:
        kept = tuple(g for g in FEATURE_GROUPS if g != group)
        found.append(Variant(f"without {group}", config=replace(settings, groups=kept)))
    return [*found, Variant(WITHOUT_CODE, config=replace(settings, encode_task=False))]


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """On the pair split for both action sets; on held-out experts for the paper's actions."""
    data = catalogs.full
    figures: dict[str, Any] = {}
    frames = []
    for number, (name, target) in enumerate(TARGETS.items()):
        units = data.units(name, target)

        tell = part_of(progress, f"{name} actions", number, 3)
        figures[name], raw = compare_variants(data, units, variants(data.settings), tell)
        frames.append(raw.with_columns(pl.lit(name).alias("actions"), pl.lit("pairs").alias("split")))
    units = data.units("paper", "expert_task")
    few = [v for v in variants(data.settings) if v.name in (*ALONE, WITHOUT_CODE)]
    figures["held_out_experts"], raw = held_out_variants(data, units, few, part_of(progress, "held-out experts", 2, 3))
    frames.append(raw.with_columns(pl.lit("paper").alias("actions"), pl.lit("held_out_experts").alias("split")))
    return Result(pl.concat(frames, how="diagonal"), figures)
