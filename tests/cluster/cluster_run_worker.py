"""A run worker of its own process: one run over a range of partitions, in the instance that DAGSTER_HOME names."""

from __future__ import annotations

import sys

import dagster as dg

from simmerge_pipeline.definitions import defs

RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def main(asset: str, first: str, last: str) -> int:
    """Execute the run; 0 if it succeeded."""
    job = defs().resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        done = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(asset)],
            tags=dict(zip(RANGE, (first, last), strict=True)),
            raise_on_error=False,
        )
    return 0 if done.success else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
