"""Everything Dagster loads: what stands in the folders of `simmerge_pipeline.defs`."""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Collect the definitions; this file holds none of its own, since they would not be found."""
    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # the version is pinned below the next minor one
        assets = dg.with_source_code_references(list(found.assets or []))
    return dg.Definitions(
        assets=assets,
        asset_checks=found.asset_checks,
        jobs=found.jobs,
        schedules=found.schedules,
        sensors=found.sensors,
        resources=found.resources,
        executor=found.executor,
        loggers=found.loggers,
        metadata=found.metadata,
    )
