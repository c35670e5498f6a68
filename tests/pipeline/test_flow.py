"""What a growing catalog asks of the automation, tick after tick, from a new folder to a served merge request."""

from __future__ import annotations

import shutil
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest
import yaml
from pipeline_flow import STAND_INS, Flow, Requested
from pipeline_world import World

from simmerge_core.tables import MERGE_LABELS, PAIRWISE_FEATURES

pytestmark = pytest.mark.integration

NONE = {"None"}
TRAINED = {"selector": NONE, "bandit": NONE}


def cells(checkpoints: tuple[str, ...], *tasks: str) -> set[str]:
    return {f"{c}|{t}" for c in checkpoints for t in tasks}


def labelled(new: set[str], checkpoints: set[str] | None) -> list[Requested]:
    """Everything up to the labels of new partitions, in the order of the graph."""
    once = {"weight_gram": checkpoints} if checkpoints else {}
    return [
        *([{"checkpoints": checkpoints}] if checkpoints else []),
        {"probe_activations": new, "standalone_scores": new, **once},
        {"functional_similarity": new},
        {"pairwise_features": new},
        {"merge_labels": new},
    ]


def served(*requests: str) -> list[Requested]:
    """Merge requests, and the report once at the end."""
    ids = set(requests)
    return [
        {"merge_plans": ids, "merged_checkpoints": ids},
        {"merge_outcomes": ids},
        {"bandit_rounds": ids, "report": NONE},
    ]


@pytest.fixture
def flow(small: World, monkeypatch: pytest.MonkeyPatch) -> Flow:
    """The catalog names three checkpoints; others are found in a folder beside them."""
    monkeypatch.setenv("SIMMERGE_CATALOG", str(small.catalog_path))
    monkeypatch.setenv("SIMMERGE_DATA", str(small.data))
    folder = small.catalog_path.parent / "arrivals"
    folder.mkdir()
    small.declare(discover=[{"folder": "arrivals", "quiet_seconds": 0}], labels={"retrain_after": 0.5})
    return Flow(small)


def drop(world: World, id: str, *, like: str) -> Path:
    """A checkpoint folder, as it comes with a copy program: nobody edits the catalog."""
    entry = world.add_checkpoint(id, like=like)
    made, folder = world.catalog_path.parent / entry["path"], world.catalog_path.parent / "arrivals" / id
    made.rename(folder)
    (folder / "simmerge.yaml").write_text(f"domain: {entry['domain']}\n")
    return folder


def ask(world: World, id: str) -> None:
    requests = yaml.safe_load(world.catalog_path.read_text())["merge_requests"]
    world.declare(merge_requests=[*requests, {"id": id, "task": "math", "k": 2}])


def files(world: World) -> dict[Path, tuple[int, bytes]]:
    found = (file for file in world.data.rglob("part.parquet"))
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in found}


def test_what_arrives_is_dealt_with_in_order_and_nothing_else_is_touched(flow: Flow, tiny_catalog: Path) -> None:
    world, earlier = flow.world, ("base", "math-01", "math-02", "code-01")
    assert flow.settle() == [
        *labelled(cells(earlier, "math"), set(earlier)), TRAINED, {"plan_labels": {"math"}}, {"report": NONE}
    ]  # fmt: skip

    # A folder and a request come together: the request waits for what the selector learns of the checkpoint.
    before = files(world)
    drop(world, "math-09", like="math-01")
    ask(world, "two")
    assert flow.settle() == [*labelled(cells(("math-09",), "math"), {"math-09"}), TRAINED, *served("two")]
    assert {file: files(world)[file] for file in before} == before

    # One more label of three is not enough for the selector, and the request that is served stays as it is.
    world.declare(labels={"retrain_after": 1.0})
    before = files(world)
    drop(world, "code-09", like="math-02")
    assert flow.settle() == [*labelled(cells(("code-09",), "math"), {"code-09"}), {"bandit": NONE}, {"report": NONE}]
    assert {file: files(world)[file] for file in before} == before

    # A task asks for its own partitions along the other axis, and for no checkpoint again.
    everyone = (*earlier, "math-09", "code-09")
    before = files(world)
    world.declare(tasks=yaml.safe_load(tiny_catalog.read_text())["tasks"][:2])
    second = world.catalog.task_ids[1]
    new = cells(everyone, second)
    assert flow.settle() == [*labelled(new, None), TRAINED, {"plan_labels": {second}}, {"report": NONE}]
    assert {file: files(world)[file] for file in before} == before

    assert not flow.failed
    for task in world.catalog.task_ids:
        rows = world.root.scan(PAIRWISE_FEATURES).filter((pl.col("task") == task) & (pl.col("a") < pl.col("b")))
        pairs = [tuple(pair) for pair in rows.select("a", "b").collect().iter_rows()]
        assert sorted(pairs) == sorted(tuple(sorted(p)) for p in combinations(world.catalog.checkpoint_ids, 2))


def test_a_broken_checkpoint_holds_nobody_up_and_the_rest_of_it_follows_its_repair(flow: Flow) -> None:
    world = flow.world
    flow.settle()
    folder = drop(world, "math-09", like="math-01")
    broken, kept = folder / "model.safetensors", folder.parent / ".kept"
    shutil.copy(broken, kept)
    shutil.copy(world.catalog_path.parent / "checkpoints" / "code-01" / "config.json", folder / "config.json")
    weights = bytearray(broken.read_bytes())
    weights[-4:] = b"\x00\x00\xc0\x7f"  # the last number is NaN
    broken.write_bytes(weights)
    ask(world, "two")
    assert flow.settle() == [{"checkpoints": {"math-09"}}, *served("two")]
    assert list(flow.failed) == ["checkpoints[math-09]"]
    assert "math-09" in flow.failed["checkpoints[math-09]"]
    shutil.copy(kept, broken)
    flow.compute({"checkpoints": {"math-09"}})  # by hand: what a user has to repair does not repair itself
    assert flow.settle() == [*labelled(cells(("math-09",), "math"), {"math-09"})[1:], TRAINED, {"report": NONE}]


def test_what_arrived_while_a_checkpoint_was_away_is_paired_and_labelled_when_it_is_back(flow: Flow) -> None:
    world = flow.world
    world.declare(labels={"expert_auxiliary": 1.0})
    flow.settle()
    entries, kept = world.entries(), world.add_checkpoint("code-09", like="code-01")  # declared: code is no task
    world.declare(checkpoints=[*entries, kept])
    flow.settle()
    world.declare(checkpoints=entries)
    drop(world, "math-09", like="math-01")
    flow.settle()
    before = files(world)
    world.declare(checkpoints=[*entries, kept])
    made_up = [{asset: keys for asset, keys in step.items() if asset not in STAND_INS} for step in flow.settle()]
    assert [step for step in made_up if step] == [
        {"weight_gram": {"math-09"}, "functional_similarity": {"math-09|math"}},
        {"pairwise_features": {"math-09|math"}},
        {"merge_labels": {"math-09|math"}},
    ]
    written = {file.parent.parent.name for file, found in files(world).items() if before.get(file) != found}
    assert written == {"checkpoint=math-09", "weight_gram"}
    assert not flow.failed
    labels = world.root.scan(MERGE_LABELS).select("a", "b").unique().collect()
    assert ("code-09", "math-09") in labels.rows()
