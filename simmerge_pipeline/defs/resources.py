"""The resources that every asset and sensor uses, configured by the environment."""

from __future__ import annotations

import dagster as dg

from simmerge_pipeline.resources import CatalogResource, ComputeResource, DataRootResource


@dg.definitions
def resources() -> dg.Definitions:
    """Catalog, data root and compute settings."""
    return dg.Definitions(
        resources={
            "catalog": CatalogResource.from_environment(),
            "data": DataRootResource.from_environment(),
            "compute": ComputeResource.from_environment(),
        }
    )
