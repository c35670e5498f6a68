"""Tables, evaluations, probe records, merges and caches under a data root on a local S3 server."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from s3_server import S3Server

from simmerge_core.catalog import load_catalog
from simmerge_core.checkpoints import fingerprint, open_checkpoint
from simmerge_core.errors import MergeError, TableError
from simmerge_core.evaluation import EvaluationStore
from simmerge_core.evaluation.store import SCORE_SCHEMA
from simmerge_core.experiments.result import Result, ResultStore
from simmerge_core.merging import execute, execute_plan
from simmerge_core.plans import plan_of
from simmerge_core.probes.cache import cached_checkpoints, probe_path
from simmerge_core.retention import expendable, remove
from simmerge_core.storage import ObjectPath, kept_listings, listed, local_folder, located
from simmerge_core.storage.scratch import scratch_folder
from simmerge_core.tables import STANDALONE_SCORES, DataRoot

pytestmark = pytest.mark.s3

DAY = 86_400.0


def scores(utility: float) -> pl.DataFrame:
    row = dict.fromkeys(STANDALONE_SCORES.schema)
    row |= {"fingerprint": "f", "benchmark": "b", "metric": "acc,none", "item_set": "A", "seed": 0}
    row |= {"utility": utility, "n": 10, "evaluation_key": "k"}
    return pl.DataFrame([row], schema=dict(STANDALONE_SCORES.schema))


def entry(utility: float) -> pl.DataFrame:
    row = ("b", "acc,none", "A", 0, utility, None, 10)
    return pl.DataFrame([row], schema=SCORE_SCHEMA, orient="row")


# --- tables


def test_a_partition_that_is_overwritten_after_the_listing_is_read(s3: S3Server) -> None:
    root = DataRoot(s3.root)
    root.write(STANDALONE_SCORES, scores(0.1), checkpoint="a-1", task="math")
    with kept_listings(root.root):
        assert root.exists(STANDALONE_SCORES, checkpoint="a-1", task="math")
        root.write(STANDALONE_SCORES, scores(0.2), checkpoint="a-1", task="math")
        assert root.scan(STANDALONE_SCORES).collect()["utility"].to_list() == [0.2]


def test_a_table_is_the_same_as_in_a_folder(s3: S3Server, tmp_path: Path) -> None:
    there, here = DataRoot(s3.root), DataRoot(tmp_path)
    for root in (there, here):
        assert root.scan(STANDALONE_SCORES).collect().is_empty()
        assert root.partitions(STANDALONE_SCORES) == []
        for n, checkpoint in enumerate(("b.2", "a-1")):
            root.write(STANDALONE_SCORES, scores(0.1 * n), checkpoint=checkpoint, task="math")
        assert root.exists(STANDALONE_SCORES, checkpoint="a-1", task="math")
        assert not root.exists(STANDALONE_SCORES, checkpoint="a-1", task="code")
        with pytest.raises(TableError, match="materialize it first"):
            root.read(STANDALONE_SCORES, checkpoint="a-1", task="code")
    assert there.partitions(STANDALONE_SCORES) == here.partitions(STANDALONE_SCORES)
    some = [{"checkpoint": c, "task": t} for c in ("b.2", "absent") for t in ("math", "code")]
    for where in (None, some, some[:1], some[-1:], []):
        found, expected = (root.scan(STANDALONE_SCORES, where=where).collect() for root in (there, here))
        assert_frame_equal(found, expected)


def test_reading_a_table_takes_one_listing_and_fetches_what_is_new(s3: S3Server) -> None:
    root = DataRoot(s3.root)
    for n in range(20):
        root.write(STANDALONE_SCORES, scores(0.0), checkpoint=f"c-{n:02d}", task="math")
    s3.counted()
    assert root.scan(STANDALONE_SCORES).collect().height == 20
    assert s3.counted() == {"LIST": 1, "GET": 20}
    assert root.scan(STANDALONE_SCORES).collect().height == 20
    assert s3.counted() == {"LIST": 1}
    root.write(STANDALONE_SCORES, scores(1.0), checkpoint="c-03", task="math")
    s3.counted()
    assert root.scan(STANDALONE_SCORES).collect()["utility"].sum() == 1.0
    assert s3.counted() == {"LIST": 1, "GET": 1}
    root.scan(STANDALONE_SCORES, where=[{"checkpoint": "c-03", "task": "math"}]).collect()
    assert s3.counted() == {"LIST": 1}


def test_a_damaged_object_is_named(s3: S3Server) -> None:
    root = DataRoot(s3.root)
    path = root.write(STANDALONE_SCORES, scores(0.0), checkpoint="a", task="math")
    s3.put("team/data/standalone_scores/checkpoint=a/task=math/part.parquet", local_bytes(path)[:-9])
    for read in (
        lambda: root.read(STANDALONE_SCORES, checkpoint="a", task="math"),
        lambda: root.scan(STANDALONE_SCORES),
    ):
        with pytest.raises(TableError, match=rf"{s3.root}/.*part\.parquet is damaged"):
            read()


def local_bytes(path: object) -> bytes:
    assert isinstance(path, ObjectPath)
    return path.read_bytes()


# --- artefacts


def test_evaluations_are_shared_and_merged(s3: S3Server) -> None:
    place = located(f"{s3.root}/evaluations")
    first, second = EvaluationStore(place), EvaluationStore(place)
    first.put("one", entry(0.1))
    with second.batch():
        second.put("two", entry(0.2))
        second.put("three", entry(0.3))
    assert first.missing(["one", "two", "three", "four"]) == ["four"]
    first.compact()
    assert len(listed(located_object(place))) == 1
    assert EvaluationStore(place).frame(["three", "one"])["utility"].to_list() == [0.3, 0.1]
    assert len(second) == 3


def located_object(place: object) -> ObjectPath:
    assert isinstance(place, ObjectPath)
    return place


def test_an_experiment_is_kept_under_its_stamp(s3: S3Server) -> None:
    store = ResultStore(located(f"{s3.root}/experiments/results"))
    result = Result(pl.DataFrame({"a": [1, 2]}), {"mean": 1.5})
    assert store.read("pairs", "stamp") is None
    store.write("pairs", "stamp", result)
    found = store.read("pairs", "stamp")
    assert found is not None
    assert_frame_equal(found.rows, result.rows)
    assert found.figures == result.figures
    assert store.read("pairs", "another") is None


def test_caches_that_nobody_asks_for_are_removed_and_results_stay(s3: S3Server, tiny_catalog: Path) -> None:
    catalog, root = load_catalog(tiny_catalog), DataRoot(s3.root)
    known, task = catalog.checkpoint_ids[0], catalog.task_ids[0]
    for checkpoint in (known, "gone-01"):
        s3.put(f"team/data/probe_activations/checkpoint={checkpoint}/task={task}/probe.safetensors", b"12345")
    for name in ("config.json", "selector.safetensors"):
        s3.put(f"team/data/experiments/models/abc/{name}", b"123")
    s3.put("team/data/merged_checkpoints/merge_request=old/config.json", b"{}")
    s3.put("team/data/.exclusive-0a.tmp", b"first")
    assert cached_checkpoints(root, task) == sorted([known, "gone-01"])
    now = time.time()
    assert expendable(root, catalog, keep_days=30, now=now) == []
    found = expendable(root, catalog, keep_days=30, now=now + 40 * DAY)
    assert [(str(e.path).removeprefix(f"{s3.root}/"), e.bytes) for e in found] == [
        (".exclusive-0a.tmp", 5),
        ("experiments/models/abc", 6),
        (f"probe_activations/checkpoint=gone-01/task={task}", 5),
    ]
    assert remove(found) == 16
    assert [str(f.path.name) for f in listed(located_object(root.root))] == ["config.json", "probe.safetensors"]
    assert probe_path(root, known, task).is_file()


# --- merges


def test_a_merge_is_built_here_and_uploaded_whole(s3: S3Server, tiny_catalog: Path, tmp_path: Path) -> None:
    folders = {c: tiny_catalog.parent / "checkpoints" / c for c in ("math-01", "code-01")}
    plan = plan_of(list(folders), ["linear"])
    out = located(f"{s3.root}/merged_checkpoints/merge_request=a")
    for _ in range(2):  # the second replaces the first
        merged = execute_plan(plan, folders, out, shard_bytes=100_000)
    here = execute_plan(plan, folders, tmp_path / "here", shard_bytes=100_000)
    assert merged.fingerprint == here.fingerprint
    with local_folder(out, last="config.json") as copy:
        assert sorted(f.name for f in copy.iterdir()) == sorted(f.name for f in (tmp_path / "here").iterdir())
        assert fingerprint(open_checkpoint(copy, name="merged")) == here.fingerprint
        assert len(list(copy.glob("*.safetensors"))) > 1
    assert list((scratch_folder() / "making").iterdir()) == []


def test_a_merge_that_does_not_fit_the_scratch_folder_is_refused(
    s3: S3Server, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {c: tiny_catalog.parent / "checkpoints" / c for c in ("math-01", "code-01")}
    out = located(f"{s3.root}/merged_checkpoints/merge_request=a")
    monkeypatch.setattr(execute.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    with pytest.raises(MergeError, match=r"is built in .*cache before it is uploaded.*or let SIMMERGE_CACHE"):
        execute_plan(plan_of(list(folders), ["linear"]), folders, out)
    assert listed(located_object(out)) == []


def test_what_is_no_merge_is_not_replaced(s3: S3Server, tiny_catalog: Path) -> None:
    folders = {c: tiny_catalog.parent / "checkpoints" / c for c in ("math-01", "code-01")}
    s3.put("team/data/other/config.json", b"{}")
    with pytest.raises(MergeError, match="was not written by a merge"):
        execute_plan(plan_of(list(folders), ["linear"]), folders, located(f"{s3.root}/other"))
