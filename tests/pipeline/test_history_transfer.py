"""A move to another instance: what is there is known there, too, and nothing is computed again."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from pipeline_world import SIGNALS, World

from simmerge_pipeline.event_log import persistent_instance
from simmerge_pipeline.transfer import main, transfer

pytestmark = pytest.mark.integration


def test_nothing_is_computed_again_after_a_move(small: World) -> None:
    done = small.materialize(*SIGNALS)
    assert done.ok
    source = small.instance
    with dg.DagsterInstance.ephemeral() as target:
        copied = transfer(source, target)
        assert copied == {a.name: a.partitions for a in done.assets}
        for name in SIGNALS:
            key = dg.AssetKey(name)
            assert target.get_materialized_partitions(key) == source.get_materialized_partitions(key)
        assert transfer(source, target) == {}

        small.instance = target
        again = small.materialize(*SIGNALS)
        assert [(a.computed, a.current) for a in again.assets] == [(0, a.partitions) for a in done.assets]


def test_only_the_newest_of_a_partition_is_copied_in_the_order_of_events() -> None:
    with dg.DagsterInstance.ephemeral() as source, dg.DagsterInstance.ephemeral() as target:
        for asset, partition, number in (("b", "x", 1), ("a", "x", 2), ("b", "y", 3), ("b", "x", 4), ("c", None, 5)):
            source.report_runless_asset_event(
                dg.AssetMaterialization(
                    asset,
                    partition=partition,
                    metadata={"number": number},
                    tags={"dagster/data_version": str(number), "dagster/input_event_pointer/z": "9"},
                )
            )
        assert transfer(source, target) == {"a": 1, "b": 2, "c": 1}
        found = [
            (record.storage_id, event.metadata["number"].value, event.tags)
            for key in target.all_asset_keys()
            for record in target.fetch_materializations(key, limit=10).records
            if (event := record.asset_materialization) is not None
        ]
    assert [number for _, number, _ in sorted(found)] == [2, 3, 4, 5]
    assert all((tags or {}).keys() == {"dagster/data_version"} for _, _, tags in found)


def test_the_command_copies_into_the_instance_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").mkdir()
    with persistent_instance(tmp_path / "old") as old:
        old.add_dynamic_partitions("checkpoint", ["one"])
        old.report_runless_asset_event(dg.AssetMaterialization("checkpoints", partition="one"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "new"))
    assert main([str(tmp_path / "old")]) == 0
    with persistent_instance(tmp_path / "new") as new:
        assert new.get_dynamic_partitions("checkpoint") == ["one"]
        assert new.get_materialized_partitions(dg.AssetKey("checkpoints")) == {"one"}
    assert "1 materializations copied" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "told"), [("nowhere", "has no history"), ("old", "another one")])
def test_the_command_refuses_what_it_cannot_copy(
    given: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old" / "history").mkdir(parents=True)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "old"))
    assert main([str(tmp_path / given)]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
