"""Everything Dagster loads: what stands in the folders of `simmerge_pipeline.defs`."""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg

from simmerge_pipeline.executors import chosen_executor


@dg.definitions
def defs() -> dg.Definitions:
    """Collect the definitions; this file holds none of its own, since they would not be found."""
    chosen_executor()  # a wrong setting is told in its own sentence here, and inside a tree of files by the loader
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
