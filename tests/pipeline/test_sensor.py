"""The catalog sensor, called directly."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress

import dagster as dg
import pytest
from pipeline_world import SIGNALS, World

from simmerge_core.errors import CatalogError
from simmerge_pipeline.definitions import defs
from simmerge_pipeline.defs.catalog import sensors
from simmerge_pipeline.defs.catalog.sensors import catalog_sensor
from simmerge_pipeline.resources import CatalogResource, DataRootResource
from simmerge_pipeline.sentences import some


class Heard(logging.Handler):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.levelname} {record.getMessage()}")


def resources(world: World) -> dict[str, object]:
    return {
        "catalog": CatalogResource(path=str(world.catalog_path)),
        "data": DataRootResource(path=str(world.data)),
    }


def tick(world: World) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(instance=world.instance, resources=resources(world)) as context:
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
    def told() -> list[str]:
        heard = Heard()
        with dg.build_sensor_context(instance=small.instance, resources=resources(small)) as context:
            context.log.addHandler(heard)
            with suppress(CatalogError):
                catalog_sensor(context)
        return heard.texts

    assert "INFO New in the catalog, added to the partitions of task: math." in told()
    small.catalog_path.write_text("version: [1")
    assert [text for text in told() if text.startswith("ERROR") and "not valid YAML" in text]


def test_a_catalog_of_thousands_is_not_told_name_by_name() -> None:
    assert some(["a", "b"], 2) == "a, b"
    assert some([f"c{i}" for i in range(5000)], 3) == "c0, c1, c2 and 4997 more"


def test_of_many_that_wait_some_are_told_and_the_others_counted(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(small, added(tick(small)))
    monkeypatch.setattr(sensors, "still_changing", lambda catalog, new: [f"c{number}" for number in range(50)])
    told = tick(small)
    assert isinstance(told, dg.SkipReason)
    assert str(told.skip_message).endswith("Checkpoint 'c19' is still changing. 30 more wait.")


def test_a_removed_entry_keeps_its_partition(small: World) -> None:
    apply(small, added(tick(small)))
    small.declare(checkpoints=small.entries()[:2])
    assert isinstance(tick(small), dg.SkipReason)


def test_pairs_that_were_lost_while_a_checkpoint_was_away_are_made_up_for(small: World) -> None:
    loaded, entries, given = defs(), small.entries(), resources(small)
    job = loaded.resolve_implicit_global_asset_job_def()

    def asked() -> dict[str, set[str]]:
        """A tick as the daemon evaluates it."""
        with (
            dg.partition_loading_context(dynamic_partitions_store=small.instance),
            dg.build_sensor_context(instance=small.instance, definitions=loaded, resources=given) as context,
        ):
            requests = catalog_sensor.evaluate_tick(context).run_requests or []
        found: dict[str, set[str]] = {}
        for request in requests:
            assert request.run_key
            for key in request.asset_selection or []:
                found.setdefault(key.to_user_string(), set()).add(str(request.partition_key))
        return found

    small.declare(checkpoints=entries[:-1])
    assert small.materialize(*SIGNALS).ok
    small.declare(checkpoints=[*entries[:1], *entries[2:]])  # one leaves before another comes
    assert small.materialize(*SIGNALS).ok
    assert asked() == {}
    small.declare(checkpoints=entries)
    lacking = {"weight_gram": {"code-01"}, "functional_similarity": {"code-01|math"}}
    assert asked() == lacking
    assert asked() == lacking  # under the same run keys, so that Dagster starts nothing anew
    run = small.instance.create_run_for_job(
        job, asset_selection={dg.AssetKey("weight_gram")}, status=dg.DagsterRunStatus.STARTED
    )
    assert asked() == {"functional_similarity": lacking["functional_similarity"]}
    small.instance.report_run_canceled(run)

    kept = small.data / "probe_activations" / "checkpoint=math-02"
    kept.rename(kept.with_name(".math-02"))  # as retention removes it
    assert asked() == {"weight_gram": {"code-01"}, "probe_activations": {"math-02|math"}}
    kept.with_name(".math-02").rename(kept)

    summary = {a.name: a.computed for a in small.materialize(*SIGNALS).assets}  # a backfill does the same
    assert summary == {
        **dict.fromkeys(SIGNALS, 0),
        "weight_gram": 1,
        "functional_similarity": 1,
        "pairwise_features": 1,
    }
    assert asked() == {}
    assert set(small.materialize(*SIGNALS).failed) == set()


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


def test_a_newcomer_does_not_take_the_id_of_a_partition_that_is_damaged(small: World) -> None:
    folder = small.catalog_path.parent / "arrivals"
    (small.catalog_path.parent / small.entries()[1]["path"]).rename(folder.with_name("kept"))
    folder.mkdir()
    folder.with_name("kept").rename(folder / "math-02")
    entries = [small.entries()[0], *small.entries()[2:]]
    small.declare(checkpoints=entries, discover=[{"folder": "arrivals", "domain": "math", "quiet_seconds": 0}])
    apply(small, added(tick(small)))
    shutil.copytree(folder / "math-02", folder / "MATH-02")
    (folder / "math-02" / "model.safetensors").unlink()
    waiting = tick(small)
    assert isinstance(waiting, dg.SkipReason)
    assert "'MATH-02' is 'math-02' in other letters" in str(waiting.skip_message)
    assert "math-02" in small.instance.get_dynamic_partitions("checkpoint")
