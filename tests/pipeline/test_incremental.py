"""A growing catalog: new work only, nothing lost, and a broken checkpoint hurts nobody else."""

from __future__ import annotations

import json
import os
import signal
from itertools import combinations
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from pipeline_world import SIGNALS, World
from polars.testing import assert_frame_equal

from simmerge_core.evaluation import EvaluationStore
from simmerge_core.tables import CHECKPOINTS, FUNCTIONAL_SIMILARITY, MERGE_LABELS, PAIRWISE_FEATURES, WEIGHT_GRAM

pytestmark = pytest.mark.integration


def state(world: World) -> dict[Path, tuple[int, bytes]]:
    files = (file for file in world.data.rglob("*") if file.is_file())
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def pairs(world: World) -> list[frozenset[str]]:
    rows = world.root.scan(PAIRWISE_FEATURES).filter(pl.col("a") < pl.col("b")).select("a", "b").collect()
    return [frozenset(pair) for pair in rows.iter_rows()]


def every_pair(world: World, *, without: str = "") -> set[frozenset[str]]:
    return {frozenset(p) for p in combinations([c for c in world.catalog.checkpoint_ids if c != without], 2)}


def test_a_new_checkpoint_adds_its_partitions_and_touches_no_earlier_file(small: World) -> None:
    assert small.materialize(*SIGNALS).ok
    before = state(small)
    assert set(pairs(small)) == every_pair(small)

    small.declare(checkpoints=[*small.entries(), small.add_checkpoint("math-09", like="math-01")])
    summary = small.materialize(*SIGNALS)
    assert summary.ok
    assert [a.computed for a in summary.assets] == [1] * len(SIGNALS)
    after = state(small)
    assert {file: after[file] for file in before} == before
    assert {f.parent.parent.name for f in after.keys() - before.keys() if "task=" in f.parent.name} == {
        "checkpoint=math-09"
    }
    found = pairs(small)
    assert len(found) == len(set(found))
    assert set(found) == every_pair(small)
    own = small.root.read(PAIRWISE_FEATURES, checkpoint="math-09", task="math")
    assert own.height == 2 * 3  # both orientations with each of three


def test_a_folder_that_may_still_be_copied_into_is_left_for_another_time(small: World) -> None:
    entries, folder = small.entries(), small.catalog_path.parent / "arrivals"
    folder.mkdir()
    (small.catalog_path.parent / entries[-1]["path"]).rename(folder / "code-01")
    named = {"id": "named", "task": "math", "k": 2, "checkpoints": ["code-01", "math-01"]}

    def arrivals(quiet_seconds: float) -> None:
        discover = [{"folder": "arrivals", "domain": "math", "quiet_seconds": quiet_seconds}]
        small.declare(checkpoints=entries[:-1], discover=discover, merge_requests=[named])

    arrivals(3600)
    summary = small.materialize(*SIGNALS, "merge_plans")
    assert (summary.changing, summary.failed) == (["code-01"], {})
    assert small.instance.get_dynamic_partitions("checkpoint") == ["base", "math-01", "math-02"]
    assert {a.name: a.partitions for a in summary.assets}["merge_plans"] == 0
    assert set(pairs(small)) == every_pair(small, without="code-01")
    arrivals(0)
    summary = small.materialize(*SIGNALS)
    assert (summary.changing, summary.failed) == ([], {})
    assert set(pairs(small)) == every_pair(small)


def test_a_new_task_computes_its_own_partitions_only(small: World, tiny_catalog: Path) -> None:
    import yaml

    assert small.materialize(*SIGNALS).ok
    before = state(small)
    tasks = yaml.safe_load(tiny_catalog.read_text())["tasks"][:2]
    small.declare(tasks=tasks)
    summary = {a.name: a.computed for a in small.materialize(*SIGNALS).assets}
    assert (summary["checkpoints"], summary["weight_gram"]) == (0, 0)
    assert summary["pairwise_features"] == 4  # three experts and the base
    assert {file: state(small)[file] for file in before} == before


def test_a_broken_checkpoint_fails_alone_and_is_made_up_for_when_it_is_repaired(small: World) -> None:
    broken = small.catalog_path.parent / "checkpoints" / "math-02" / "model.safetensors"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    summary = small.materialize(*SIGNALS)
    assert set(summary.failed) == {
        "checkpoints[math-02]",
        "weight_gram[math-02]",
        *(f"{name}[math-02|math]" for name in ("probe_activations", "functional_similarity", "pairwise_features")),
    }
    assert "math-02" in summary.failed["checkpoints[math-02]"]
    assert "\n" not in summary.failed["checkpoints[math-02]"]
    assert set(pairs(small)) == every_pair(small, without="math-02")
    runs = small.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert len(runs) == 1
    assert small.instance.get_materialized_partitions(dg.AssetKey("checkpoints")) == {"base", "math-01", "code-01"}

    before = state(small)
    broken.write_bytes(whole)
    summary = small.materialize(*SIGNALS)
    assert summary.ok
    assert [a.computed for a in summary.assets] == [1] * len(SIGNALS)
    assert {file: state(small)[file] for file in before} == before
    assert set(pairs(small)) == every_pair(small)


def test_other_content_under_the_same_id_is_refused_with_both_fingerprints(small: World) -> None:
    assert small.materialize("checkpoints").ok
    kept = state(small)
    target = small.catalog_path.parent / "checkpoints" / "math-01" / "model.safetensors"
    target.write_bytes((small.catalog_path.parent / "checkpoints" / "math-02" / "model.safetensors").read_bytes())
    told = small.materialize("checkpoints").failed["checkpoints[math-01]"]
    was = small.root.read(CHECKPOINTS, checkpoint="math-01")["fingerprint"].item()
    now = small.root.read(CHECKPOINTS, checkpoint="math-02")["fingerprint"].item()
    assert was[:12] in told
    assert now[:12] in told
    assert state(small) == kept


@pytest.mark.parametrize("asset", SIGNALS[1:3])
def test_other_content_under_the_same_id_is_not_computed_with(small: World, asset: str) -> None:
    assert small.materialize("checkpoints").ok
    folder = small.catalog_path.parent / "checkpoints"
    (folder / "math-01" / "model.safetensors").write_bytes((folder / "math-02" / "model.safetensors").read_bytes())
    failed = small.materialize(asset).failed
    assert [key for key in failed if "math-01" in key] == list(failed) != []
    assert all("has other content than before" in told for told in failed.values())


def test_merges_of_others_with_weights_that_were_replaced_are_not_scored(small: World) -> None:
    assert small.materialize(*SIGNALS).ok
    folder = small.catalog_path.parent / "checkpoints"
    (folder / "math-01" / "model.safetensors").write_bytes((folder / "math-02" / "model.safetensors").read_bytes())
    failed = small.materialize("merge_labels").failed
    assert set(failed) == {"merge_labels[math-01|math]"}
    assert "has other content than before" in failed["merge_labels[math-01|math]"]
    labels = small.root.scan(MERGE_LABELS).collect()
    assert not labels.is_empty()
    assert not {"math-01"} & {*labels["a"], *labels["b"]}
    store = EvaluationStore(small.data / "evaluations")
    assert len(store) == labels["evaluation_key"].n_unique()


def test_features_are_computed_though_inner_products_of_a_pair_are_missing(small: World) -> None:
    assert small.materialize(*SIGNALS[:-1]).ok
    full = small.root.scan(WEIGHT_GRAM).collect()
    assert small.materialize("pairwise_features").ok
    expected = small.root.scan(PAIRWISE_FEATURES).collect().sort("a", "b")
    ids = small.catalog.checkpoint_ids
    for checkpoint in ids:  # as if two partitions had been written at once and neither had seen the other
        alone = full.filter((pl.col("checkpoint") == checkpoint) & ~pl.col("other").is_in(set(ids) - {checkpoint}))
        small.root.write(WEIGHT_GRAM, alone, checkpoint=checkpoint)
        (small.data / "pairwise_features" / f"checkpoint={checkpoint}" / "task=math" / "part.parquet").unlink()
    assert small.materialize("pairwise_features").ok
    assert small.root.scan(PAIRWISE_FEATURES).collect().sort("a", "b").equals(expected)


def test_a_pair_held_twice_is_one_pair_to_readers(small: World) -> None:
    assert small.materialize(*SIGNALS).ok
    expected = small.root.scan(PAIRWISE_FEATURES).collect().sort("a", "b")
    frames = {key["checkpoint"]: small.root.read(FUNCTIONAL_SIMILARITY, **key) for key in _functional(small)}
    first, second = small.catalog.checkpoint_ids[:2]
    both = [f.filter(pl.col("a").is_in([first, second]) & pl.col("b").is_in([first, second])) for f in frames.values()]
    key = ["a", "b", "metric", "layer", "head"]
    shared = pl.concat(both).unique(key, maintain_order=True)
    for checkpoint in (first, second):
        whole = pl.concat([frames[checkpoint], shared]).unique(
            ["a", "b", "metric", "layer", "head"], maintain_order=True
        )
        small.root.write(FUNCTIONAL_SIMILARITY, whole.drop("checkpoint", "task"), checkpoint=checkpoint, task="math")
    summary = small.materialize("pairwise_features")
    assert summary.ok
    found = small.root.scan(PAIRWISE_FEATURES).collect().sort("a", "b")
    # Sums of the same numbers in another order: equal but for the last bits.
    assert_frame_equal(found, expected)


def test_runs_of_a_driver_that_was_killed_are_closed(small: World) -> None:
    import socket

    from simmerge_pipeline.definitions import defs

    job = defs().resolve_implicit_global_asset_job_def()
    tags = {"simmerge/process": f"{socket.gethostname()}:99999999"}
    dead = small.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
    other = small.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert small.materialize("checkpoints").ok
    assert small.instance.get_run_by_id(dead.run_id).status == dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]
    assert small.instance.get_run_by_id(other.run_id).status == dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]


def _functional(world: World) -> list[dict[str, str]]:
    return world.root.partitions(FUNCTIONAL_SIMILARITY)


def test_failures_are_told_by_partition_in_the_run(small: World) -> None:
    (small.catalog_path.parent / "checkpoints" / "math-02" / "config.json").unlink()
    small.materialize("checkpoints")
    run = small.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))[0]
    failures = [e.dagster_event for e in small.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)]
    assert failures[0] is not None
    told = failures[0].step_failure_data.user_failure_data
    assert told is not None
    assert told.description is not None
    assert told.description.startswith("1 of 4 partitions failed, the others are written. math-02: ")
    assert list(json.loads(json.dumps(told.metadata["failed"].value))) == ["math-02"]


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_call_and_the_next_one_goes_on(small: World, which: signal.Signals) -> None:
    def interrupt(message: str, fraction: float) -> None:
        if message.startswith("weight_gram: inner"):
            os.kill(os.getpid(), which)

    with pytest.raises(KeyboardInterrupt):
        small.materialize(*SIGNALS, progress=interrupt)
    # Whatever comes after it in the graph was not begun.
    begun = [run.asset_selection for run in small.instance.get_runs()]
    assert begun[0] == {dg.AssetKey("weight_gram")}
    assert not small.instance.get_materialized_partitions(dg.AssetKey("pairwise_features"))
    kept = state(small)
    assert small.materialize(*SIGNALS).ok
    assert {file: state(small)[file] for file in kept} == kept
    assert set(pairs(small)) == every_pair(small)
