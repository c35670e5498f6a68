"""Pictures for the assets' pages, drawn by `simmerge_core.analysis.figures`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

if TYPE_CHECKING:
    from simmerge_core.bandit import OnlineBandit


def picture(png: bytes, *, title: str) -> dg.MarkdownMetadataValue:
    """A PNG that the asset's page shows, no wider than the page."""
    from simmerge_core.analysis.figures import narrowed

    content = base64.b64encode(narrowed(png)).decode("ascii")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{content})")


def pictures(figures: Mapping[str, bytes]) -> dict[str, dg.MarkdownMetadataValue]:
    """PNGs by file stem, as metadata."""
    return {name: picture(png, title=name.replace("_", " ")) for name, png in figures.items()}


def similarity_pictures(features: pl.DataFrame) -> dict[str, Any]:
    """How alike the checkpoints are, as a heat map of weights and behaviour; nothing without a pair."""
    from simmerge_core.analysis.figures import similarity_heat_map

    if features.is_empty():
        return {}
    return pictures({"similarity": similarity_heat_map(features, note="before any merge; KL on unlabeled probes")})


def regret_pictures(bandits: Iterable[OnlineBandit]) -> dict[str, Any]:
    """What each bandit's rounds have brought, and what they are estimated to have cost; none before its first."""
    from simmerge_core.analysis.figures import bandit_rounds

    figures = {}
    for online in bandits:
        learned = online.learned()
        if learned.height:
            rewards, regret = (learned[name].to_list() for name in ("reward", "estimated_regret"))
            figures[f"{online.name} regret"] = bandit_rounds(rewards, regret, name=online.name)
    return pictures(figures)
