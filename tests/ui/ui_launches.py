"""What the tests launch by clicks: each once, however many tests look at it."""

from __future__ import annotations

from dataclasses import dataclass

from cluster_graphql import FINISHED, wait_for
from ui_pages import Interface
from ui_screenshots import Screenshots
from ui_servers import Servers
from ui_world import NEW, TASKS

REQUEST = "math-and-code"
CONFIG = f"""\
ops:
  declare_merge_request:
    config:
      id: {REQUEST}
      tasks: [math, code]
      checkpoints: [math-01, math-02, code-01, code-02]
      k: 2
      actions: extended
"""


@dataclass(frozen=True)
class Launches:
    """Ids of two backfills and of the run of a job, which the daemon works through while other pages are looked at."""

    servers: Servers
    probes: str
    manifests: str
    submission: str

    def backfill_ends(self, id: str) -> None:
        """Wait until there is an end to look at."""
        wait_for(lambda: self.servers.interface.status(id), FINISHED.__contains__, self.servers.logs)

    def run_ends(self, id: str) -> None:
        """Wait until a run has ended."""
        wait_for(lambda: self.servers.interface.run(id), {"SUCCESS", "FAILURE", "CANCELED"}.__contains__,
                 self.servers.logs)  # fmt: skip


def launch(ui: Interface, servers: Servers, screenshots: Screenshots) -> Launches:
    """Backfill a new checkpoint's probes, and the manifests that are missing; submit a merge request."""
    # The sensor has found the new checkpoints in the catalog by now, or does so in a moment.
    wait_for(lambda: servers.interface.partitions("checkpoints"), lambda s: s["numPartitions"] == 10, servers.logs)
    wait_for(lambda: servers.interface.daemon_is_healthy("BACKFILL"), bool, servers.logs)  # else the dialog warns
    page = ui.open_asset("probe_activations")
    ui.button("Materialize…").click()
    ui.choose([NEW])
    ui.choose(TASKS)
    page.get_by_text(f"{len(TASKS)} partitions").first.wait_for()
    screenshots.take(page, "ui-backfill-dialog")
    probes = ui.launch_backfill()

    page = ui.open_asset("checkpoints")
    ui.button("Materialize…").click()
    ui.button("Missing").click()
    page.get_by_text("2 partitions").first.wait_for()
    manifests = ui.launch_backfill()

    editor = ui.launchpad("submit_merge_request")
    ui.type_config(editor, CONFIG)
    ui.text("No errors").wait_for()
    screenshots.take(page, "ui-launchpad")
    return Launches(servers, probes, manifests, ui.launch_run())
