"""The catalog sensor, called directly."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress

import dagster as dg
import pytest
from pipeline_world import World

from simmerge_core.errors import CatalogError
from simmerge_pipeline.defs.catalog.sensors import catalog_sensor
from simmerge_pipeline.resources import CatalogResource


class Heard(logging.Handler):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.levelname} {record.getMessage()}")


def tick(world: World) -> dg.SensorResult | dg.SkipReason:
    resource = CatalogResource(path=str(world.catalog_path))
    with dg.build_sensor_context(instance=world.instance, resources={"catalog": resource}) as context:
        found = catalog_sensor(context)
    assert isinstance(found, dg.SensorResult | dg.SkipReason)
    return found


def added(result: dg.SensorResult | dg.SkipReason) -> dict[str, list[str]]:
    assert isinstance(result, dg.SensorResult)
    requests = result.dynamic_partitions_requests or []
    return {request.partitions_def_name: list(request.partition_keys) for request in requests}


def apply(world: World, requests: dict[str, list[str]]) -> None:
    for name, keys in requests.items():
        world.instance.add_dynamic_partitions(name, keys)


def test_only_what_is_new_becomes_partitions(small: World) -> None:
    first = added(tick(small))
    assert first == {"checkpoint": ["base", "math-01", "math-02", "code-01"], "task": ["math"]}
    apply(small, first)
    assert isinstance(tick(small), dg.SkipReason)
    new = small.add_checkpoint("math-09", like="math-01")
    request = {"id": "two", "task": "math", "k": 2}
    small.declare(checkpoints=[*small.entries(), new], merge_requests=[request])
    assert added(tick(small)) == {"checkpoint": ["math-09"], "merge_request": ["two"]}


def test_a_catalog_that_does_not_parse_raises_and_leaves_the_partitions(small: World) -> None:
    apply(small, added(tick(small)))
    small.catalog_path.write_text("version: [1")
    with pytest.raises(CatalogError, match="not valid YAML"):
        tick(small)
    assert small.instance.get_dynamic_partitions("checkpoint") == ["base", "math-01", "math-02", "code-01"]


def test_the_log_of_a_tick_says_what_is_new_and_what_is_wrong(small: World) -> None:
    resource = CatalogResource(path=str(small.catalog_path))

    def told() -> list[str]:
        heard = Heard()
        with dg.build_sensor_context(instance=small.instance, resources={"catalog": resource}) as context:
            context.log.addHandler(heard)
            with suppress(CatalogError):
                catalog_sensor(context)
        return heard.texts

    assert "INFO New in the catalog, added to the partitions of task: math." in told()
    small.catalog_path.write_text("version: [1")
    assert [text for text in told() if text.startswith("ERROR") and "not valid YAML" in text]


def test_a_removed_entry_keeps_its_partition(small: World) -> None:
    apply(small, added(tick(small)))
    small.declare(checkpoints=small.entries()[:2])
    assert isinstance(tick(small), dg.SkipReason)


def test_a_checkpoint_that_is_back_has_its_pairs_made_up_for(small: World) -> None:
    apply(small, added(tick(small)))
    entries, pairs = small.entries(), ("functional_similarity", "pairwise_features")
    for asset in ("weight_gram", *pairs):
        for key in ("code-01", "math-01"):
            partition = key if asset == "weight_gram" else f"{key}|math"
            small.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))
    resource, cursor = CatalogResource(path=str(small.catalog_path)), None
    asked = []
    for checkpoints in (entries, entries[:-1], entries[:-1], entries, entries):
        small.declare(checkpoints=checkpoints)
        with dg.build_sensor_context(
            instance=small.instance, resources={"catalog": resource}, cursor=cursor
        ) as context:
            result = catalog_sensor(context)
            cursor = context.cursor
        requests = result.run_requests or [] if isinstance(result, dg.SensorResult) else []
        asked.append({str(r.partition_key): {k.to_user_string() for k in r.asset_selection or []} for r in requests})
    assert asked == [{}, {}, {}, {"code-01": {"weight_gram"}, "code-01|math": set(pairs)}, {}]


def test_without_a_catalog_nothing_is_requested(small: World) -> None:
    small.catalog_path.unlink()
    skipped = tick(small)
    assert isinstance(skipped, dg.SkipReason)
    assert "make demo" in str(skipped.skip_message)


def test_a_folder_that_is_dropped_is_found_when_it_is_whole_and_quiet(small: World) -> None:
    entries, folder = small.entries(), small.catalog_path.parent / "checkpoints"
    for other in sorted(set(folder.iterdir()) - {folder / name for name in ("base", *small.catalog.checkpoint_ids)}):
        shutil.rmtree(other)
    small.declare(discover=[{"folder": "checkpoints", "domain": "math", "quiet_seconds": 3600}])
    apply(small, added(tick(small)))
    new = small.add_checkpoint("math-09", like="math-01")
    assert small.entries() == entries  # nobody edits the file
    waiting = tick(small)
    assert isinstance(waiting, dg.SkipReason)
    assert "'math-09' is still changing" in str(waiting.skip_message)
    small.declare(discover=[{"folder": "checkpoints", "domain": "math", "quiet_seconds": 0}])
    weights = folder / "math-09" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    waiting = tick(small)
    assert isinstance(waiting, dg.SkipReason)
    assert "'math-09': model.safetensors is truncated" in str(waiting.skip_message)
    weights.write_bytes(whole)
    assert added(tick(small)) == {"checkpoint": ["math-09"]}
    assert small.catalog.domains["math-09"] == new["domain"]
