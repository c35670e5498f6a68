"""Two processes that materialize the same partitions at once, into one data root and one instance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from pipeline_world import SIGNALS, World
from polars.testing import assert_frame_equal

from simmerge_core.tables import MERGE_LABELS, PAIRWISE_FEATURES, STANDALONE_SCORES, TABLES
from simmerge_pipeline.event_log import persistent_instance

pytestmark = pytest.mark.integration

ASSETS = (*SIGNALS, "standalone_scores", "merge_labels")
WORKER = Path(__file__).with_name("pipeline_worker.py")
READ_BY = {
    PAIRWISE_FEATURES: ["task", "a", "b"],
    MERGE_LABELS: ["task", "a", "b", "action", "benchmark", "metric", "item_set", "seed"],
    STANDALONE_SCORES: ["checkpoint", "task", "benchmark", "metric", "item_set", "seed"],
}


def evaluations(data: Path) -> pl.DataFrame:
    """Every entry of every segment, also of a key that was stored twice."""
    files = sorted((data / "evaluations").glob("segment-*.parquet"))
    return pl.concat(
        [pl.read_parquet(file, hive_partitioning=False).with_columns(file=pl.lit(file.name)) for file in files]
    )


def test_both_succeed_and_what_they_wrote_is_whole_and_the_same(small: World, tmp_path: Path) -> None:
    home, go = tmp_path / "home", tmp_path / "go"
    with persistent_instance(home):
        pass  # what is created at the first start is not the point
    command = [sys.executable, str(WORKER), *map(str, (small.catalog_path, small.data, home, go)), *ASSETS]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        go.touch()
        told = [process.communicate(timeout=400) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [out for out, _ in told] == ["{}\n", "{}\n"], told
    assert [process.returncode for process in both] == [0, 0]

    with persistent_instance(home) as instance:
        statuses = {run.status for run in instance.get_runs()}
        done = {name: set(instance.get_materialized_partitions(dg.AssetKey(name))) for name in ASSETS}
    assert statuses == {dg.DagsterRunStatus.SUCCESS}
    assert done["merge_labels"] == {f"{c}|math" for c in ("base", *small.catalog.checkpoint_ids)}

    alone = World(small.catalog_path, tmp_path / "alone", small.instance)
    assert alone.materialize(*ASSETS).ok
    for table, keys in READ_BY.items():
        found, expected = (world.root.scan(table).collect().drop("checkpoint") if "checkpoint" not in keys
                           else world.root.scan(table).collect() for world in (small, alone))  # fmt: skip
        once = found.unique(keys).sort(keys)
        assert_frame_equal(once, expected.sort(keys))
        # A row that both hold is the same row.
        assert_frame_equal(found.sort(keys), found.select(keys).join(once, on=keys).select(found.columns).sort(keys))
    assert not list(small.data.rglob(".*.tmp"))

    before = evaluations(small.data)
    per_key = before.drop("file").unique().group_by("evaluation_key", "benchmark", "metric", "item_set", "seed").len()
    assert per_key["len"].to_list() == [1] * per_key.height  # stored twice at worst, and then with equal content
    assert before.select("evaluation_key", "file").unique().group_by("evaluation_key").len()["len"].max() <= 2
    for name in ("standalone_scores", "merge_labels"):
        for keys in small.root.partitions(TABLES[name]):
            small.root.path(TABLES[name], **keys).unlink()
    with persistent_instance(home) as instance:
        assert World(small.catalog_path, small.data, instance).materialize(*ASSETS).ok
    assert set(evaluations(small.data)["evaluation_key"]) == set(before["evaluation_key"])
    assert evaluations(small.data).height == before.height  # nothing is paid for again
