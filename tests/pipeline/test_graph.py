"""The whole graph on the tiny demo catalog: everything written, told to Dagster, checked, and not done twice."""

from __future__ import annotations

import json

import dagster as dg
import polars as pl
import pytest
from pipeline_world import World, newest_event, width_of

from simmerge_core.tables import MERGE_LABELS, MERGE_OUTCOMES, MERGE_PLANS, PAIRWISE_FEATURES, PLAN_LABELS, TABLES
from simmerge_pipeline.contents import fingerprints
from simmerge_pipeline.label_requests import designed_plans, further_plans
from simmerge_pipeline.materialize import Summary
from simmerge_pipeline.ownership import owned_others

pytestmark = pytest.mark.integration


def latest(world: World, asset: str) -> dict[str | None, dg.AssetMaterialization]:
    found: dict[str | None, dg.AssetMaterialization] = {}
    for record in world.instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records:
        event = record.asset_materialization
        assert event is not None
        found.setdefault(event.partition, event)
    return found


def test_everything_that_can_be_served_is_materialized(finished: tuple[World, Summary]) -> None:
    world, summary = finished
    assert summary.failed == {}
    for asset in summary.assets:
        assert asset.computed == asset.partitions
        assert asset.runs == (asset.name != "active_labels")  # whose partitions are days, for the schedule
        assert len(latest(world, asset.name)) == asset.partitions


def test_row_counts_are_those_of_the_files(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    for name, table in TABLES.items():
        for key, event in latest(world, name).items():
            keys = dict(zip(table.partition, str(key).split("|"), strict=True))
            assert event.metadata["dagster/partition_row_count"].value == world.root.read(table, **keys).height


def test_every_pair_has_one_row_per_orientation_and_task(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    catalog, rows = world.catalog, world.root.scan(PAIRWISE_FEATURES).collect()
    ids = catalog.checkpoint_ids
    assert rows.height == len(catalog.task_ids) * len(ids) * (len(ids) - 1)
    assert rows.select("task", "a", "b").is_unique().all()
    assert catalog.base.id not in {*rows["a"], *rows["b"]}


def test_labels_stand_where_the_features_of_their_pair_stand(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    features = world.root.scan(PAIRWISE_FEATURES).select("checkpoint", "task", "a", "b").collect()
    labels = world.root.scan(MERGE_LABELS).select("checkpoint", "task", "a", "b").unique().collect()
    assert labels.height
    assert labels.join(features, on=["checkpoint", "task", "a", "b"], how="anti").is_empty()


def test_checks_ran_and_passed(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    for asset, expected in {
        "weight_gram": {"no_nan", "pairs_complete"},
        "functional_similarity": {"no_nan", "cosines_in_range", "kl_not_negative", "pairs_complete"},
        "pairwise_features": {"no_nan", "cosines_in_range", "kl_not_negative", "pairs_complete"},
        "merge_labels": {"no_nan", "labels_cover_actions"},
        "merge_outcomes": {"no_nan", "folder_scores_as_in_memory"},
    }.items():
        keys = [dg.AssetCheckKey(dg.AssetKey(asset), name) for name in sorted(expected)]
        found = world.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
        assert {key.name for key, record in found.items() if record.status.value == "SUCCEEDED"} == expected


def test_the_report_and_its_pictures_are_files_and_metadata(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    folder, event = world.data / "report", latest(world, "report")[None]
    report = json.loads((folder / "report.json").read_text())
    assert report["pairwise"]["test_pairs"] > 0
    assert (folder / "report.md").read_text() == event.metadata["report"].value
    for name in ("gap_closed", "confusion", "similarity"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert str(event.metadata[name].value).startswith(f"![{name.replace('_', ' ')}](data:image/png;base64,")
    events = latest(world, "pairwise_features").values()
    assert sum("similarity" in event.metadata for event in events) == 1  # one per run, not one per partition
    shown = newest_event(world, "pairwise_features").metadata  # by the asset's page
    assert width_of(str(shown["similarity"].value)) == 960
    assert "dagster/column_lineage" in shown


def test_plans_are_scored_on_the_tasks_of_all_their_checkpoints(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    catalog, root = world.catalog, world.root
    report = json.loads((world.data / "report" / "report.json").read_text())
    figures = report["extended"]["plans"]["3"]
    assert {"simmerge", "expert_last_best_fixed", "random_order", "oracle"} <= set(figures)
    assert figures["rows"] > 0
    assert figures["without_needed_plans"] == 0
    designed = {
        task: len(designed_plans(catalog, root, fingerprints(root, catalog), task)) for task in catalog.task_ids
    }
    assert report["plans"]["3"]["configurations"] == catalog.labels.multiway[3] * len(catalog.task_ids)
    for task in catalog.task_ids:
        assert further_plans(catalog, root, fingerprints(root, catalog), task) == []
        executed = root.read(PLAN_LABELS, task=task).select("order", "actions").unique().height
        assert executed > designed[task]


def test_the_merged_folder_is_compared_with_its_rivals(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    for request in world.catalog.merge_requests:
        rows = world.root.read(MERGE_OUTCOMES, merge_request=request.id)
        steps = {"step"} if request.policy != "selector" else set()
        assert {"simmerge", "expert_last_best_fixed", "random_order", "parent", "base"} | steps == set(rows["role"])
        assert rows.filter(pl.col("role") == "parent")["model"].n_unique() == request.k
        assert (world.root.folder("merged_checkpoints", merge_request=request.id) / "model.safetensors").is_file()


def test_intervals_and_explanations_are_metadata(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    requests = {request.id: request for request in world.catalog.merge_requests}
    for key, event in latest(world, "merge_plans").items():
        plans, told = world.root.read(MERGE_PLANS, merge_request=str(key)), event.metadata
        if requests[str(key)].policy != "selector":
            continue
        best = plans.row(0, named=True)
        assert best["low"] < best["predicted_utility"] < best["high"]
        assert str(told["interval"].value).startswith(f"{best['low']:.4f} to {best['high']:.4f} at ")
        still_open = plans.filter(~pl.col("distinguishable") & (pl.col("rank") > 1))["rank"].to_list()
        ranks = f"plans of rank {', '.join(map(str, still_open))}" if still_open else "none"
        assert told["cannot be told apart from the best"].value == ranks
        settling = str(told["evaluations that would settle it"].value)
        assert settling.startswith(f"{len(still_open) + 1} plans on " if still_open else "none")
        why = str(told["why"].value)
        assert why.count("**Step") == requests[str(key)].k - 1
        assert all(f"{action} is predicted" in why for action in best["actions"])
        assert "| task code |" in why
    metadata = latest(world, "selector")[None].metadata
    for name in ("paper", "extended"):
        lines = str(metadata[f"{name} intervals"].value).splitlines()
        assert lines[0].startswith("| intervals at 90% |")
        measured = {where: row for where, *row in ([c.strip() for c in line.strip("|").split("|")] for line in lines)}
        assert float(measured["out of fold"][2]) > 0
        assert metadata[f"{name} interval coverage"].value == float(measured["test pairs"][0])


def test_a_second_time_nothing_is_computed_and_no_file_changes(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    before = {file: file.stat().st_mtime_ns for file in world.data.rglob("*") if file.is_file()}
    runs = len(world.instance.get_runs())
    again = world.materialize()
    assert [a.name for a in again.assets if a.computed or a.runs or a.failed] == []
    assert {file: file.stat().st_mtime_ns for file in world.data.rglob("*") if file.is_file()} == before
    assert len(world.instance.get_runs()) == runs


def test_owned_others_agrees_with_what_is_on_disk(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    ids, task = world.catalog.checkpoint_ids, world.catalog.task_ids[0]
    rows = world.root.scan(PAIRWISE_FEATURES).filter(pl.col("task") == task).collect()
    held = {(c, b) for c, a, b in rows.select("checkpoint", "a", "b").iter_rows() if a == c}
    for checkpoint in ids:
        mine = {other for owner, other in held if owner == checkpoint}
        assert set(owned_others(checkpoint, present=ids, held=held, later=set())) == mine


def test_columns_say_where_they_come_from_and_runs_what_they_were_about(finished: tuple[World, Summary]) -> None:
    world, _ = finished
    for asset, column, source in (
        ("pairwise_features", "kl_ab_mean", ("functional_similarity", "mean")),
        ("pairwise_features", "weight_cosine", ("weight_gram", "dot")),
        ("merge_plans", "predicted_utility", ("pairwise_features", "weight_cosine")),
        ("bandit_rounds", "reward", ("merge_outcomes", "utility")),
    ):
        events = [event.metadata for event in latest(world, asset).values()]
        told = [m["dagster/column_lineage"] for m in events if "dagster/column_lineage" in m]
        assert len(told) == 1  # one per run, not one per partition
        deps = told[0].value.deps_by_column[column]
        assert source in {(dep.asset_key.to_user_string(), dep.column_name) for dep in deps}
        table = TABLES[source[0]]
        assert all(dep.column_name in table.schema for dep in deps)
    runs = world.instance.get_runs()
    tagged = [run.tags for run in runs if "simmerge/checkpoint" in run.tags]
    assert any(tags["simmerge/task"] == ",".join(sorted(world.catalog.task_ids)) for tags in tagged)
    assert all(event.metadata["seconds"].value >= 0 for event in latest(world, "merge_labels").values())
