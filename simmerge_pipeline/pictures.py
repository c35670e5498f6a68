"""Pictures for the assets' pages, drawn by `simmerge_core.analysis.figures`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl


def picture(png: bytes, *, title: str) -> dg.MarkdownMetadataValue:
    """A PNG that the asset's page shows."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})")


def pictures(figures: Mapping[str, bytes]) -> dict[str, dg.MarkdownMetadataValue]:
    """PNGs by file stem, as metadata."""
    return {name: picture(png, title=name.replace("_", " ")) for name, png in figures.items()}


def similarity_pictures(features: pl.DataFrame) -> dict[str, Any]:
    """How alike the checkpoints are, as a heat map of weights and behaviour; nothing without a pair."""
    from simmerge_core.analysis.figures import similarity_heat_map

    if features.is_empty():
        return {}
    return pictures({"similarity": similarity_heat_map(features, note="before any merge; KL on unlabeled probes")})
