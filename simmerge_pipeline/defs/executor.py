"""The executor of the code location, chosen by the environment."""

from __future__ import annotations

import dagster as dg

from simmerge_pipeline.executors import chosen_executor


@dg.definitions
def executor() -> dg.Definitions:
    """For every job that names no executor of its own, and for runs of assets."""
    return dg.Definitions(executor=chosen_executor())
