"""The tiny demo's whole graph on an object store: the same results as in a folder, from a few listings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch
from pipeline_world import World
from polars.testing import assert_frame_equal
from s3_server import S3Server
from typer.testing import CliRunner

from simmerge_cli.app import app
from simmerge_core.analysis import selector_folder
from simmerge_core.bandit import DurableBandit, bandit_folder, bandit_names
from simmerge_core.selector import Selector
from simmerge_core.storage import located
from simmerge_core.tables import TABLES, DataRoot
from simmerge_pipeline.defs.operations.retention import clear_caches
from simmerge_pipeline.materialize import Summary
from simmerge_pipeline.resources import CatalogResource, DataRootResource

pytestmark = [pytest.mark.s3, pytest.mark.integration]

SCORED = ("standalone_scores", "merge_labels", "plan_labels", "merge_outcomes")


@pytest.fixture(scope="module")
def stored(
    tiny_catalog: Path,
    finished: tuple[World, Summary],
    s3_server: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[World, Summary]]:
    """Everything materialized on the tiny catalog in a bucket; read-only by agreement.

    Evaluations are taken from the folder, since they would only be computed again: what is read, written and derived
    is the same. That they are written by labelling is seen in the test of one partition.
    """
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        patch.setenv("SIMMERGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        s3_server.make_bucket()
        for segment in Path(finished[0].data).glob("evaluations/*.parquet"):
            s3_server.put(f"team/data/evaluations/{segment.name}", segment.read_bytes())
        world = World(tiny_catalog, s3_server.root, instance)
        yield world, world.materialize()


def test_everything_is_computed(stored: tuple[World, Summary], finished: tuple[World, Summary]) -> None:
    _, summary = stored
    assert summary.failed == {}
    computed = {a.name: a.computed for a in summary.assets}
    assert computed == {a.name: a.computed for a in finished[1].assets}
    assert all(computed[name] for name in computed if name != "active_labels")


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_same_as_in_a_folder(
    stored: tuple[World, Summary], finished: tuple[World, Summary], name: str
) -> None:
    there, here = (world.root.scan(TABLES[name]).collect() for world, _ in (stored, finished))
    assert_frame_equal(there, here)


def test_artefacts_are_the_same_as_in_a_folder(stored: tuple[World, Summary], finished: tuple[World, Summary]) -> None:
    there, here = (world.root for world, _ in (stored, finished))
    for name in ("paper", "extended"):
        keys = {Selector.load(selector_folder(root, name)).key for root in (there, here)}
        assert len(keys) == 1
    assert bandit_names(there) == bandit_names(here) != []
    for name in bandit_names(there):
        bandits = [DurableBandit.open(bandit_folder(root, name)) for root in (there, here)]
        assert len({bandit.state.key for bandit in bandits}) == 1
        assert bandits[0].replay().identical
    reports = [json.loads((root.root / "report" / "report.json").read_text()) for root in (there, here)]
    assert reports[0] == reports[1]
    below = [
        sorted("/".join(path.parts[len(root.root.parts) :]) for path in (root.root / "merged_checkpoints").glob("*/*"))
        for root in (there, here)
    ]
    assert below[0] == below[1]


def test_what_is_current_is_known_from_a_few_listings(stored: tuple[World, Summary], s3_server: S3Server) -> None:
    world, first = stored
    s3_server.counted()
    again = world.materialize()
    assert {a.name: a.computed for a in again.assets if a.computed} == {}
    assert {a.name: a.current for a in again.assets} == {a.name: a.computed for a in first.assets}
    counted = s3_server.counted()
    partitions = sum(a.partitions for a in again.assets)
    assert counted["LIST"] + counted["HEAD"] + counted["GET"] < partitions
    assert counted["PUT"] == counted["DELETE"] == 0


def test_a_new_table_of_labels_is_stale_for_its_readers_and_written_by_itself(
    stored: tuple[World, Summary], s3_server: S3Server, tmp_path: Path
) -> None:
    world, _ = stored
    with dg.DagsterInstance.ephemeral() as instance:
        alone = World(world.catalog_path, f"s3://{s3_server.bucket}/alone", instance)
        assert alone.materialize("checkpoints", "standalone_scores").ok
        assert {p.name.partition("-")[0] for p in (alone.root.root / "evaluations").glob("*")} == {"segment"}
        found, expected = (w.root.scan(TABLES["standalone_scores"]).collect() for w in (alone, world))
        assert_frame_equal(found, expected)


def test_caches_are_cleared_by_the_job(stored: tuple[World, Summary]) -> None:
    world, _ = stored
    resources = {
        "catalog": CatalogResource(path=str(world.catalog_path)),
        "data": DataRootResource(path=str(world.data)),
    }
    config = {"ops": {"remove_unused_caches": {"config": {"dry_run": True}}}}
    assert clear_caches.execute_in_process(resources=resources, run_config=config).success


def _cli(*arguments: object) -> Any:
    ran = CliRunner().invoke(app, [str(a) for a in arguments])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def test_commands_read_it_as_a_folder(stored: tuple[World, Summary], finished: tuple[World, Summary]) -> None:
    (there, _), (here, _) = stored, finished
    domains = here.catalog.domains
    checkpoints = [next(c for c in domains if domains[c] == domain) for domain in dict.fromkeys(domains.values())]
    task = domains[checkpoints[0]]
    for command in (
        ("plan", *checkpoints, "--task", task),
        ("features", "--task", task),
        ("bandit", "rounds", bandit_names(here.root)[0]),
        ("bandit", "list"),
        ("bandit", "replay"),
    ):
        answers = [_cli(*command, "--json", "--data", world.data) for world in (there, here)]
        for answer in answers:
            if command[0] == "plan":
                answer.pop("selector")  # its place
            if command[-1] == "replay":
                for told in answer.values():
                    told.pop("seconds")
        assert answers[0] == answers[1], command
    tables = _cli("tables", "--json", "--data", there.data)
    assert {t["table"]: t["partitions"] for t in tables} == {
        name: len(here.root.partitions(table)) for name, table in TABLES.items()
    }
    assert tables[0]["glob"].startswith(f"{there.data}/")


def test_a_bucket_that_is_not_there_is_refused_before_any_work(stored: tuple[World, Summary]) -> None:
    world, _ = stored
    ran = CliRunner().invoke(app, ["features", "--data", "s3://nowhere/data"])
    assert ran.exit_code == 2
    assert ran.output.strip() == (
        "Error: Data root s3://nowhere/data cannot be used: there is no bucket s3://nowhere; make it first."
    )
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(Exception, match="no bucket s3://nowhere"):
        World(world.catalog_path, "s3://nowhere/data", instance).materialize()


def test_the_resource_takes_a_url() -> None:
    assert DataRootResource(path="s3://bucket/data").root.root == located("s3://bucket/data")
    assert isinstance(DataRootResource(path="data").root, DataRoot)
