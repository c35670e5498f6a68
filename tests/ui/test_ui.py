"""What a user does in Dagster's UI, from the first look to a merged folder on disk.

The tests share one server and follow each other: what one launches, a later one waits for. What is asserted stands in
the page; GraphQL is asked only when to look.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import AutoConfig
from ui_launches import REQUEST, Launches
from ui_pages import Interface, drawn, shortened
from ui_screenshots import Screenshots
from ui_servers import Servers
from ui_world import BROKEN, LATER, NEW, TASKS, Grown

pytestmark = [pytest.mark.ui, pytest.mark.integration]

RUN = re.compile(r"^[0-9a-f]{8}$")
GROUPS = {
    "bandit": ("bandit", "bandit_rounds"),
    "catalog": ("checkpoints",),
    "labels": ("active_labels", "merge_labels", "plan_labels", "standalone_scores"),
    "merges": ("merge_outcomes", "merge_plans", "merged_checkpoints"),
    "probes": ("probe_activations",),
    "selection": ("report", "selector"),
    "similarity": ("functional_similarity", "pairwise_features", "weight_gram"),
}


def test_the_graph_shows_every_group_and_asset(ui: Interface, screenshots: Screenshots) -> None:
    page = ui.open("asset-groups")
    page.set_viewport_size({"width": 1700, "height": 1120})  # at less, the names of assets are too small to be read
    for group in GROUPS:
        page.get_by_role("button", name=group).first.wait_for()
    page.get_by_placeholder("Jump to").locator("xpath=following::button[1]").click()  # the tree of groups
    ui.expand_all_groups()
    for asset in sum(GROUPS.values(), ()):
        page.get_by_text(shortened(asset)).first.wait_for()
    screenshots.take(page, "asset_graph", settled=8000)  # until every state has its colour


def test_automation_is_listed_with_its_switches(ui: Interface, daemon: Servers, screenshots: Screenshots) -> None:
    page = ui.open("automation")
    names = ("automation", "catalog_sensor", "daily_labels", "nightly_backfill", "weekly_retention")
    found = {name: ui.switch(name).locator("input").is_checked() for name in names}
    assert found == {
        "automation": False,  # switched off by the fixture, by a click
        "catalog_sensor": True,
        "daily_labels": True,
        "nightly_backfill": False,
        "weekly_retention": False,
    }
    screenshots.take(page, "ui-automation")


def test_a_backfill_shows_its_partitions(ui: Interface, launched: Launches) -> None:
    page = ui.open(f"runs/b/{launched.probes}")
    ui.text("probe_activations").wait_for()
    for task in TASKS:
        page.get_by_text(f"{NEW}|{task}", exact=True).first.wait_for()


def test_a_table_says_what_its_columns_are(ui: Interface, screenshots: Screenshots) -> None:
    page = ui.open_asset("pairwise_features")
    row = ui.cells("kl_ab_mean")
    for text in ("Float64", "non-nullable", ">= 0", "[nat]"):
        row.get_by_text(text).first.wait_for()
    for text in ("similarity", "simmerge", "Parquet", "Polars", "stage: signals", "assets.py"):
        page.get_by_text(text).first.wait_for()  # group, owner, kinds, tag, code
    page.get_by_text("One ordered pair of checkpoints on a task").first.wait_for()
    screenshots.take(page, "ui-asset")


@pytest.mark.parametrize(
    ("asset", "key", "picture"),
    [
        ("pairwise_features", "similarity", "ui-heat-map"),
        ("report", "confusion", "ui-confusion"),
        ("bandit_rounds", "paper-lints regret", "ui-regret"),
    ],
)
def test_a_picture_is_drawn(ui: Interface, screenshots: Screenshots, asset: str, key: str, picture: str) -> None:
    page = ui.open_asset(asset)
    size = drawn(ui.picture(key))
    assert size["alt"] == key
    assert 0 < size["natural"] <= 960
    assert 0 < size["shown"] <= page.viewport_size["width"]
    screenshots.take(page, picture)


def test_a_column_says_what_it_is_computed_from(ui: Interface) -> None:
    page = ui.open_asset("pairwise_features")
    row = page.locator("tr").filter(has_text="kl_ab_mean").filter(has_text="functional_similarity: ").last
    row.wait_for()
    assert "weight_cosine" not in row.inner_text()


def test_checks_say_what_holds_and_how_severe_it_is(ui: Interface, screenshots: Screenshots) -> None:
    page = ui.open_asset("pairwise_features", "checks")
    for name in ("cosines_in_range", "kl_not_negative", "no_nan", "pairs_complete"):
        ui.text(name).wait_for()
    page.get_by_text("A failure is an error.").first.wait_for()
    ui.text("pairs_complete").click()
    page.get_by_text("A failure is a warning").first.wait_for()
    ui.text("Passed").wait_for()
    screenshots.take(page, "ui-checks", height=600)


def test_a_backfill_succeeds(ui: Interface, launched: Launches, screenshots: Screenshots) -> None:
    launched.backfill_ends(launched.probes)
    page = ui.open(f"runs/b/{launched.probes}")
    page.get_by_text("100% completed").wait_for()
    assert ui.backfill_counts("probe_activations") == {"targeted": 2, "in progress": 0, "succeeded": 2, "failed": 0}
    assert page.get_by_text("Succeeded", exact=True).count() == 2  # the column, and the status of the whole
    screenshots.take(page, "ui-backfill", height=320)


def test_a_broken_checkpoint_fails_alone_and_says_why(
    ui: Interface, launched: Launches, screenshots: Screenshots
) -> None:
    launched.backfill_ends(launched.manifests)
    page = ui.open(f"runs/b/{launched.manifests}")
    ui.text("Failed").wait_for()
    assert ui.backfill_counts("checkpoints") == {"targeted": 2, "in progress": 0, "succeeded": 1, "failed": 1}
    page = ui.open(f"runs/b/{launched.manifests}?tab=runs")
    page.locator("a[href^='/runs/']").filter(has_text=RUN).first.click()
    sentence = f"1 of 2 partitions failed, the others are written. {BROKEN}: Checkpoint '{BROKEN}': model.safetensors"
    page.get_by_text(sentence).first.wait_for()
    screenshots.take(page, "ui-broken")
    page = ui.open_asset("checkpoints", f"partitions&partition={LATER}")
    ui.cells("fingerprint").wait_for()  # of the one beside it
    page = ui.open_asset("checkpoints", f"partitions&partition={BROKEN}")
    page.get_by_text("No metadata entries").first.wait_for()


def test_a_submitted_request_is_merged_and_its_folder_found(
    ui: Interface, launched: Launches, world: Grown, screenshots: Screenshots
) -> None:
    launched.run_ends(launched.submission)
    page = ui.open(f"runs/{launched.submission}")
    ui.text("Success").wait_for()
    page.get_by_text(f"Added merge request '{REQUEST}'").first.wait_for()

    page = ui.open("locations/simmerge/asset-groups/merges/lineage")
    ui.button("Materialize all…").click()
    ui.choose([REQUEST])
    run = ui.launch_one_run()
    launched.run_ends(run)
    page = ui.open(f"runs/{run}")
    ui.text("Success").wait_for()

    page = ui.open_asset("merged_checkpoints", f"partitions&partition={REQUEST}")
    folder = Path(ui.value("folder"))
    assert folder == world.data / "merged_checkpoints" / f"merge_request={REQUEST}"
    screenshots.take(page, "ui-merged")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    base = AutoConfig.from_pretrained(world.catalog_path.parent / "checkpoints" / "base", local_files_only=True)
    assert (config.model_type, config.hidden_size) == (base.model_type, base.hidden_size)
    with safe_open(folder / "model.safetensors", "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118
    assert parameters == int(ui.value("parameters"))


def test_a_schedule_can_be_switched(ui: Interface, launched: Launches) -> None:
    page = ui.open("automation")
    for wanted in (True, False):  # off again: at 22:00 it would begin to work
        ui.switch("nightly_backfill").click()
        ui.switched("nightly_backfill", wanted)
        page.reload()  # what it says afterwards is what the instance knows
        ui.switched("nightly_backfill", wanted)
