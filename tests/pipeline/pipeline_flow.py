"""The two sensors, tick after tick, on a catalog that a test changes, with what they ask for computed in between."""

from __future__ import annotations

import dagster as dg
from pipeline_world import World

from simmerge_pipeline.contents import fingerprints
from simmerge_pipeline.definitions import defs
from simmerge_pipeline.defs.catalog.sensors import catalog_sensor
from simmerge_pipeline.driver import Driver
from simmerge_pipeline.resources import CatalogResource, ComputeResource, DataRootResource
from simmerge_pipeline.retraining import keep_trained_on, label_keys

Requested = dict[str, set[str]]

STAND_INS = (
    "selector",
    "bandit",
    "plan_labels",
    "merge_plans",
    "merged_checkpoints",
    "merge_outcomes",
    "bandit_rounds",
    "report",
)
"""Assets whose mathematics is not the point here: an event says that they were materialized."""


class Flow:
    """Ticks of both sensors; between two of them, everything that was asked for is materialized."""

    def __init__(self, world: World) -> None:
        self.world, self.instance, self.loaded = world, world.instance, defs()
        self.graph = self.loaded.resolve_asset_graph()
        self.names = [key.to_user_string() for key in self.graph.toposorted_asset_keys]
        resources = {
            "catalog": CatalogResource(path=str(world.catalog_path)),
            "data": DataRootResource(path=str(world.data)),
            "compute": ComputeResource(workers=1),
        }
        self.job = dg.Definitions(
            assets=self.loaded.assets, resources=resources
        ).resolve_implicit_global_asset_job_def()
        self.failed: dict[str, str] = {}
        self.made_up: Requested = {}
        self._run_keys: set[str | None] = set()
        self._last: dg.EvaluateAutomationConditionsResult | None = None

    def find(self) -> dict[str, list[str]]:
        """One tick of the catalog's sensor, with the runs that it asks for; the partitions that it added."""
        resources = {
            "catalog": CatalogResource(path=str(self.world.catalog_path)),
            "data": DataRootResource(path=str(self.world.data)),
        }
        with dg.build_sensor_context(instance=self.instance, resources=resources) as context:
            result = catalog_sensor(context)
        self.made_up = {}
        for run in result.run_requests or [] if isinstance(result, dg.SensorResult) else []:
            assert run.run_key not in self._run_keys  # Dagster would take it for the earlier one
            self._run_keys.add(run.run_key)
            for asset in run.asset_selection or []:
                self.made_up.setdefault(asset.to_user_string(), set()).add(str(run.partition_key))
        self.compute(self.made_up)
        requests = result.dynamic_partitions_requests or [] if isinstance(result, dg.SensorResult) else []
        for request in requests:
            self.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        return {request.partitions_def_name: list(request.partition_keys) for request in requests}

    def requested(self) -> Requested:
        """One tick of the automation."""
        cursor = self._last.cursor if self._last is not None else None
        self._last = dg.evaluate_automation_conditions(defs=self.loaded, instance=self.instance, cursor=cursor)
        found = {name: self._last.get_requested_partitions(dg.AssetKey(name)) for name in self.names}
        return {name: {str(key) for key in keys} for name, keys in found.items() if keys}

    def compute(self, requested: Requested) -> None:
        """Materialize what was asked for, each asset in a run of its own, in the graph's order."""
        driver = Driver(self.job, self.instance, self.world.catalog, self.world.root, None)
        for name in self.names:
            keys = sorted(requested.get(name, ()))
            if name in STAND_INS:
                self._stand_in(name, keys)
            elif keys:
                for span in driver._spans(name, keys):
                    failed, text = driver._run(name, span)
                    assert not text, text
                    self.failed.update({f"{name}[{key}]": told for key, told in failed.items()})

    def _stand_in(self, name: str, keys: list[str]) -> None:
        for key in keys:
            if name == "selector":
                root = self.world.root
                keep_trained_on(root, label_keys(root, fingerprints(root, self.world.catalog)))
            partition = None if key == "None" else key
            self.instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=partition))

    def settle(self, most: int = 20) -> list[Requested]:
        """Ticks of both sensors until nothing is asked for; what each asked for."""
        steps: list[Requested] = []
        for _ in range(most):
            self.find()
            if made_up := self.made_up:
                steps.append(made_up)
            wanted = self.requested()
            if not wanted and not made_up:
                return steps
            if wanted:
                steps.append(wanted)
                self.compute(wanted)
        raise AssertionError(f"It never settles: {steps[-3:]}")
