"""Everything Dagster loads: what stands in the folders of `simmerge_pipeline.defs`."""

from __future__ import annotations

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Collect the definitions; this file holds none of its own, since they would not be found."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
