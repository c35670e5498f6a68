"""The pages of Dagster's UI as a user sees them: by their texts wherever that is enough."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

_NODE = 18  # characters
_DIMENSION = "Select a partition or create one"


def exactly(text: str) -> re.Pattern[str]:
    """A pattern of the whole text of an element."""
    return re.compile(rf"^\s*{re.escape(text)}\s*$")


class Interface:
    """One tab on the web interface."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url

    def open(self, path: str) -> Page:
        """Go to a page."""
        self.page.goto(f"{self.url}/{path}")
        return self.page

    def text(self, text: str) -> Locator:
        """The first element with exactly this text."""
        return self.page.get_by_text(text, exact=True).first

    def button(self, name: str) -> Locator:
        """The button with this text; its name for a screen reader may begin with that of its icon."""
        return self.page.locator("button").filter(has_text=exactly(name)).last

    # Automation

    def switch(self, name: str) -> Locator:
        """The switch of a sensor or schedule, once it can be used."""
        row = f"[data-index]:has(a[href$='/{name}'])"
        return self.page.locator(f"{row} label[class*=formatSwitch]:not([class*=disabled])")

    def switched(self, name: str, on: bool) -> None:
        """Wait until a switch shows a state."""
        from playwright.sync_api import expect

        expect(self.switch(name).locator("input")).to_be_checked(checked=on)

    # Assets

    def expand_all_groups(self) -> None:
        """By the menu of the graph's background."""
        size = self.page.viewport_size
        assert size is not None
        self.page.mouse.click(size["width"] * 0.6, size["height"] * 0.9, button="right")
        self.page.get_by_role("menuitem", name="Expand all groups").click()

    def open_asset(self, name: str, view: str = "overview") -> Page:
        """Go to one of the tabs of an asset's page."""
        page = self.open(f"assets/{name}?view={view}")
        page.get_by_role("button", name="Materialize").first.wait_for()
        return page

    def cells(self, key: str) -> Locator:
        """The row of a column's schema or of an entry of metadata."""
        return self.page.locator("tr").filter(has=self.page.locator("td", has_text=exactly(key))).first

    def value(self, key: str) -> str:
        """What an entry of metadata says."""
        return self.cells(key).locator("td").nth(1).inner_text().strip()

    def picture(self, key: str) -> Locator:
        """The picture in an entry of metadata, in the dialog that opens for it."""
        self.cells(key).get_by_text("[Show Markdown]").click()
        found = self.page.locator("img[src^='data:image/png']").first
        found.wait_for()
        return found

    def close_dialog(self) -> None:
        self.page.keyboard.press("Escape")

    def choose(self, partitions: Sequence[str]) -> None:
        """Choose partitions of the first dimension of the dialog that has none yet."""
        self.page.get_by_text(_DIMENSION).first.click()
        for key in partitions:
            self.page.get_by_placeholder("Filter partitions").fill(key)
            self.page.get_by_role("menuitem", name=key).last.click()
        self.page.keyboard.press("Escape")

    def launch_backfill(self) -> str:
        """Launch what the dialog says and go to the backfill's page by the message that tells of it; its id."""
        self.button("Launch backfill").click()
        self.page.get_by_text("Created backfill").wait_for()
        self.page.get_by_text("View", exact=True).last.click()
        self.page.wait_for_url("**/runs/b/*")
        return self.page.url.rpartition("/")[2]

    def backfill_counts(self, asset: str) -> dict[str, int]:
        """What the page of a backfill says of an asset's partitions."""
        numbers = self.text(asset).evaluate(
            """(name, pattern) => {
              for (let row = name; row; row = row.parentElement) {
                const found = row.innerText.match(new RegExp(pattern));
                if (found) return found.slice(1).map(Number);
              }
              return [];
            }""",
            r"% completed\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)",
        )
        return dict(zip(("targeted", "in progress", "succeeded", "failed"), numbers, strict=True))

    # Launchpad

    def launchpad(self, job: str) -> Locator:
        """The editor of a job's run config, once what stands in it was found valid."""
        page = self.open(f"locations/simmerge/jobs/{job}/playground")
        editor = page.locator(".CodeMirror").first
        editor.wait_for()
        page.get_by_text("No errors").wait_for()
        return editor

    def type_config(self, editor: Locator, config: str) -> None:
        """Replace what stands in the editor."""
        editor.click()
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.press("Delete")
        self.page.keyboard.insert_text(config)

    def launch_run(self) -> str:
        """Launch a run from the launchpad and go to its page; its id."""
        self.button("Launch Run").click()
        return self._run_shown()

    def launch_one_run(self) -> str:
        """Launch the one run that the dialog says is enough, and go to its page by the message; its id."""
        self.button("Launch 1 run").click()
        self.page.get_by_text("Launched run").wait_for()
        self.page.get_by_text("View", exact=True).last.click()
        return self._run_shown()

    def _run_shown(self) -> str:
        self.page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}"))
        found = re.search(r"/runs/([0-9a-f-]{36})", self.page.url)
        assert found is not None
        return found[1]


def shortened(name: str) -> re.Pattern[str]:
    """A name as a node of the graph shows it: long ones lose their middle."""
    return exactly(name) if len(name) <= _NODE else re.compile(rf"^{name[:4]}\w*…\w*{name[-4:]}$")


def drawn(picture: Locator) -> Mapping[str, Any]:
    """Size of a picture as its file says and as the page shows it; a picture that cannot be drawn has no width."""
    size: Mapping[str, Any] = picture.evaluate("e => ({natural: e.naturalWidth, shown: e.clientWidth, alt: e.alt})")
    return size
