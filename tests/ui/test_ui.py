"""What a user does in Dagster's UI, from the first look to a merged folder on disk.

The tests share one server and follow each other: what one launches, a later one waits for. What is asserted stands in
the page; GraphQL is asked only when to look.
"""

from __future__ import annotations

import pytest
from ui_pages import Interface
from ui_screenshots import Screenshots
from ui_servers import Servers

pytestmark = [pytest.mark.ui, pytest.mark.integration]

GROUPS = ("bandit", "catalog", "labels", "merges", "probes", "selection", "similarity")


def test_the_graph_shows_every_group(ui: Interface, screenshots: Screenshots) -> None:
    page = ui.open("asset-groups")
    for group in GROUPS:
        ui.text(group).wait_for()
    screenshots.take(page, "graph")


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
    screenshots.take(page, "automation")
