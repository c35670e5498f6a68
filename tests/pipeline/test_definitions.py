"""What Dagster loads: valid, without a warning, and described."""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from simmerge_core.tables import TABLES
from simmerge_pipeline.checks import Verdicts
from simmerge_pipeline.definitions import defs
from simmerge_pipeline.partitions import CHECKPOINT, CHECKPOINT_TASK, DAY, MERGE_REQUEST, TASK

PARTITIONS = {
    "checkpoints": CHECKPOINT,
    "probe_activations": CHECKPOINT_TASK,
    "weight_gram": CHECKPOINT,
    "functional_similarity": CHECKPOINT_TASK,
    "pairwise_features": CHECKPOINT_TASK,
    "standalone_scores": CHECKPOINT_TASK,
    "merge_labels": CHECKPOINT_TASK,
    "plan_labels": TASK,
    "active_labels": DAY,
    "selector": None,
    "bandit": None,
    "merge_plans": MERGE_REQUEST,
    "merged_checkpoints": MERGE_REQUEST,
    "merge_outcomes": MERGE_REQUEST,
    "bandit_rounds": MERGE_REQUEST,
    "report": None,
}


@pytest.fixture(scope="module")
def loaded() -> dg.Definitions:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return defs()


def test_definitions_are_loadable(loaded: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(loaded)


def test_assets_and_partitions(loaded: dg.Definitions) -> None:
    graph = loaded.resolve_asset_graph()
    found = {key.to_user_string(): graph.get(key).partitions_def for key in graph.get_all_asset_keys()}
    assert found == PARTITIONS


def test_every_asset_is_described_owned_grouped_and_automated(loaded: dg.Definitions) -> None:
    graph = loaded.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.group_name != "default"
        assert node.owners
        assert node.kinds
        # What a day may spend is its schedule's affair.
        assert (node.automation_condition is None) == (key == dg.AssetKey("active_labels"))
        assert node.code_version


def test_tables_show_their_column_schemas(loaded: dg.Definitions) -> None:
    graph = loaded.resolve_asset_graph()
    for name, table in TABLES.items():
        schema = graph.get(dg.AssetKey(name)).metadata["dagster/column_schema"]
        assert [c.name for c in schema.columns] == [*table.partition, *table.schema]
        types = {c.name: c.type for c in schema.columns}
        assert all(types[c] == str(pl.Schema({c: d})[c]) for c, d in table.schema.items())
        assert all(column.description for column in schema.columns)


def test_steps_that_run_models_take_turns_and_are_retried(loaded: dg.Definitions) -> None:
    graph = loaded.resolve_asset_graph()
    for name in (
        "probe_activations",
        "standalone_scores",
        "merge_labels",
        "plan_labels",
        "merge_outcomes",
        "active_labels",
    ):
        op = graph.get(dg.AssetKey(name)).assets_def.op
        assert op.pool == "gpu"
        assert op.retry_policy is not None
        assert {"dagster-ray/config", "dagster-k8s/config"} <= op.tags.keys()


def test_every_asset_leads_to_its_code(loaded: dg.Definitions) -> None:
    graph = loaded.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        (reference,) = graph.get(key).metadata["dagster/code_references"].code_references
        assert f"def {key.to_user_string()}(" in Path(reference.file_path).read_text("utf-8")


def test_a_selector_that_is_old_is_seen(loaded: dg.Definitions) -> None:
    policy = loaded.resolve_asset_graph().get(dg.AssetKey("selector")).freshness_policy
    assert policy is not None


def test_what_another_run_makes_up_for_only_warns() -> None:
    verdicts = Verdicts()
    verdicts.add("pairs_complete", "a", ["b"])
    verdicts.add("no_nan", "a", {"kl": 1})
    severity = {result.check_name: result.severity for result in verdicts.results()}
    assert severity == {"pairs_complete": dg.AssetCheckSeverity.WARN, "no_nan": dg.AssetCheckSeverity.ERROR}
