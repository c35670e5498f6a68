"""What the automation conditions ask for, tick by tick."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from pipeline_world import World

from simmerge_pipeline.definitions import defs

CELLS = {f"{c}|math" for c in ("base", "math-01", "math-02", "code-01")}


class Ticks:
    """Ticks of the automation sensor over the signals, with materializations reported as if runs had made them."""

    def __init__(self, world: World) -> None:
        self.instance = world.instance
        self.loaded = defs()
        for name, keys in (("checkpoint", ["base", *world.catalog.checkpoint_ids]), ("task", world.catalog.task_ids)):
            self.instance.add_dynamic_partitions(name, list(keys))
        self.last: dg.EvaluateAutomationConditionsResult | None = None

    def requested(self) -> dict[str, set[str]]:
        self.last = dg.evaluate_automation_conditions(
            defs=self.loaded, instance=self.instance, cursor=self.last.cursor if self.last is not None else None
        )
        names = [key.to_user_string() for key in self.loaded.resolve_asset_graph().get_all_asset_keys()]
        found = {name: set(self.last.get_requested_partitions(dg.AssetKey(name))) for name in names}
        return {name: {str(k) for k in keys} for name, keys in found.items() if keys}

    def done(self, asset: str, keys: set[str]) -> None:
        for key in sorted(keys):
            self.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key))


@pytest.fixture
def ticks(small: World, monkeypatch: pytest.MonkeyPatch) -> Ticks:
    monkeypatch.setenv("SIMMERGE_CATALOG", str(small.catalog_path))
    monkeypatch.setenv("SIMMERGE_DATA", str(small.data))
    return Ticks(small)


def test_missing_partitions_are_requested_in_the_order_of_the_graph(ticks: Ticks) -> None:
    checkpoints = {"base", "math-01", "math-02", "code-01"}
    assert ticks.requested() == {"checkpoints": checkpoints}  # also those from before the first tick
    assert ticks.requested() == {}  # under way: not asked for twice
    ticks.done("checkpoints", checkpoints)
    assert ticks.requested() == {"probe_activations": CELLS, "standalone_scores": CELLS, "weight_gram": checkpoints}
    ticks.done("weight_gram", checkpoints)
    ticks.done("probe_activations", CELLS)
    assert ticks.requested() == {"functional_similarity": CELLS}
    ticks.done("functional_similarity", CELLS)
    assert ticks.requested() == {"pairwise_features": CELLS}
    ticks.done("pairwise_features", CELLS)
    assert ticks.requested() == {"merge_labels": CELLS}  # and no selector, which has nothing to learn from yet
    ticks.done("merge_labels", CELLS)
    assert ticks.requested() == {"selector": {"None"}, "bandit": {"None"}}
    assert ticks.requested() == {}


def test_a_new_checkpoint_asks_for_its_own_partitions_only(small: World, ticks: Ticks) -> None:
    checkpoints = {"base", "math-01", "math-02", "code-01"}
    ticks.requested()
    for asset in ("checkpoints", "weight_gram"):
        ticks.done(asset, checkpoints)
    for asset in (
        "probe_activations",
        "standalone_scores",
        "functional_similarity",
        "pairwise_features",
        "merge_labels",
    ):
        ticks.done(asset, CELLS)
    ticks.requested()
    small.declare(checkpoints=[*small.entries(), small.add_checkpoint("math-09", like="math-01")])
    ticks.instance.add_dynamic_partitions("checkpoint", ["math-09"])
    assert ticks.requested().get("checkpoints") == {"math-09"}
    ticks.done("checkpoints", {"math-09"})
    found = ticks.requested()
    assert found["probe_activations"] == {"math-09|math"}
    assert found["weight_gram"] == {"math-09"}
    assert "functional_similarity" not in found


def test_what_has_left_the_catalog_is_asked_for_when_it_is_back(small: World, ticks: Ticks) -> None:
    entries = small.entries()
    small.declare(checkpoints=entries[:-1])
    assert ticks.requested() == {"checkpoints": {"base", "math-01", "math-02"}}
    small.declare(checkpoints=entries)
    assert ticks.requested() == {"checkpoints": {"code-01"}}


def labelled(ticks: Ticks) -> None:
    """Everything up to a trained selector is there."""
    for asset in ("checkpoints", "weight_gram"):
        ticks.done(asset, {"base", "math-01", "math-02", "code-01"})
    signals = ("probe_activations", "standalone_scores", "functional_similarity", "pairwise_features", "merge_labels")
    for asset in signals:
        ticks.done(asset, CELLS)
    for asset in ("selector", "bandit"):
        ticks.instance.report_runless_asset_event(dg.AssetMaterialization(asset))


def test_what_was_canceled_holds_no_request_up(small: World, ticks: Ticks) -> None:
    labelled(ticks)
    ticks.requested()
    new = [small.add_checkpoint(id, like="math-01") for id in ("math-08", "math-09")]
    small.declare(checkpoints=[*small.entries(), *new], merge_requests=[{"id": "two", "task": "math", "k": 2}])
    ticks.instance.add_dynamic_partitions("checkpoint", ["math-08", "math-09"])
    ticks.instance.add_dynamic_partitions("merge_request", ["two"])
    assert ticks.requested()["checkpoints"] == {"math-08", "math-09"}
    job = ticks.loaded.resolve_implicit_global_asset_job_def()
    run = ticks.instance.create_run_for_job(
        job, asset_selection={dg.AssetKey("checkpoints")}, status=dg.DagsterRunStatus.STARTED
    )
    assert "merge_plans" not in ticks.requested()
    ticks.done("checkpoints", {"math-08"})
    ticks.instance.report_run_canceled(run)
    found = ticks.requested()
    assert found["weight_gram"] == {"math-08"}  # its other part is still to come, and is waited for
    assert "merge_plans" not in found
    ticks.done("weight_gram", {"math-08"})
    assert ticks.requested().get("merge_plans") == {"two"}  # as when every run was deleted: nothing tells of them


def test_a_request_waits_for_a_folder_that_is_still_changing_and_for_whom_it_names(small: World, ticks: Ticks) -> None:
    labelled(ticks)
    ticks.requested()
    folder = small.catalog_path.parent / "arrivals"
    folder.mkdir()
    small.declare(
        discover=[{"folder": "arrivals", "domain": "math", "quiet_seconds": 3600}],
        merge_requests=[
            {"id": "any", "task": "math", "k": 2},
            {"id": "named", "task": "math", "k": 2, "checkpoints": ["code-01", "math-09"]},
        ],
    )
    ticks.instance.add_dynamic_partitions("merge_request", ["any", "named"])
    assert ticks.requested() == {"merge_plans": {"any"}, "merged_checkpoints": {"any"}}
    small.declare(
        merge_requests=[
            {"id": "later", "task": "math", "k": 2},
            {"id": "named", "task": "math", "k": 2, "checkpoints": ["code-01", "math-09"]},
        ]
    )
    ticks.instance.add_dynamic_partitions("merge_request", ["later"])
    made = small.catalog_path.parent / small.add_checkpoint("math-09", like="math-01")["path"]
    made.rename(folder / "math-09")
    assert ticks.requested() == {}  # found, and not registered yet
    ticks.instance.add_dynamic_partitions("checkpoint", ["math-09"])
    assert ticks.requested() == {"checkpoints": {"math-09"}}
    assert ticks.requested() == {"merge_plans": {"later", "named"}, "merged_checkpoints": {"later", "named"}}


def test_a_request_waits_for_the_end_of_what_the_selector_waits_for(small: World, ticks: Ticks) -> None:
    small.declare(merge_requests=[{"id": "two", "task": "math", "k": 2}])
    labelled(ticks)
    labels = PartitionBackfill(
        backfill_id="labels",
        status=BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=0.0,
        asset_selection=[dg.AssetKey("merge_labels")],
    )
    ticks.instance.add_backfill(labels)
    ticks.instance.add_dynamic_partitions("merge_request", ["two"])
    assert "merge_plans" not in ticks.requested()
    job = ticks.loaded.resolve_implicit_global_asset_job_def()
    run = ticks.instance.create_run_for_job(
        job, asset_selection={dg.AssetKey("merge_labels")}, status=dg.DagsterRunStatus.STARTED
    )
    ticks.instance.update_backfill(labels.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert "merge_plans" not in ticks.requested()
    ticks.instance.report_run_failed(run)
    assert ticks.requested().get("merge_plans") == {"two"}
