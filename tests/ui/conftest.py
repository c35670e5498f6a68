"""A browser on real servers, once per session; where something fails, a screenshot and the servers' logs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ui_browser
from cluster_processes import Processes
from ui_launches import Launches, launch
from ui_pages import Interface
from ui_screenshots import Screenshots
from ui_servers import Servers
from ui_world import Grown

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

ROOT = Path(__file__).parents[2]
_TIMEOUT = 90_000.0  # milliseconds; a page that asks the code server may have to wait for a busy machine
_SERVERS = pytest.StashKey[Servers]()
_FAILED = pytest.StashKey[Path]()


def _missing() -> str | None:
    if sys.platform != "linux":
        return "the servers are started and ended by way of Linux's /proc"
    return ui_browser.missing()


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """The grown catalog; the first of the expensive things, so this is where all of it is skipped."""
    if (reason := _missing()) is not None:
        pytest.skip(reason)
    grown = Grown(request.getfixturevalue("tiny_catalog"), tmp_path_factory.mktemp("ui"))
    grown.build()
    return grown


@pytest.fixture(scope="session")
def servers(world: Grown, pytestconfig: pytest.Config) -> Iterator[Servers]:
    """Code server and webserver; the daemon is started by `daemon`."""
    processes = Processes(world.folder / "logs")
    try:
        found = Servers(processes, home=world.home, catalog=world.catalog_path, data=world.data)
        pytestconfig.stash[_SERVERS] = found
        pytestconfig.stash[_FAILED] = world.folder / "failed"
        found.start()
        yield found
    finally:
        processes.close()


@pytest.fixture(scope="session")
def browser(servers: Servers, world: Grown) -> Iterator[BrowserContext]:
    """One browser for all tests."""
    with ui_browser.browser(world.folder / "profile") as context:
        context.set_default_timeout(_TIMEOUT)
        yield context


@pytest.fixture
def ui(browser: BrowserContext, servers: Servers) -> Iterator[Interface]:
    """A tab of its own."""
    page = browser.new_page()
    yield Interface(page, servers.url)
    page.close()


@pytest.fixture(scope="session")
def daemon(browser: BrowserContext, servers: Servers) -> Servers:
    """The servers with a daemon, after the sensor `automation` was switched off in the UI.

    Nothing is computed then but what a test asks for.
    """
    page = browser.new_page()
    ui = Interface(page, servers.url)
    ui.open("automation")
    ui.switch("automation").click()
    ui.switched("automation", False)
    page.close()
    servers.start_daemon()
    return servers


@pytest.fixture(scope="session")
def launched(browser: BrowserContext, daemon: Servers, screenshots: Screenshots) -> Launches:
    """What runs in the background of the other tests."""
    page = browser.new_page()
    found = launch(Interface(page, daemon.url), daemon, screenshots)
    page.close()
    return found


@pytest.fixture(scope="session")
def screenshots(world: Grown) -> Screenshots:
    """Where pictures for the documents go: SIMMERGE_SCREENSHOTS, or nowhere."""
    folder = os.environ.get("SIMMERGE_SCREENSHOTS")
    return Screenshots(Path(folder) if folder else None, hidden=(world.folder, Path(sys.prefix), ROOT))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add a screenshot and the servers' logs to the report of a failure."""
    report = yield
    servers = item.config.stash.get(_SERVERS, None)
    if report.failed and servers is not None:
        told = servers.logs()
        ui: Any = getattr(item, "funcargs", {}).get("ui")
        if ui is not None:
            folder = item.config.stash[_FAILED]
            folder.mkdir(exist_ok=True)
            file = folder / f"{re.sub('[^a-z0-9_]+', '-', item.name)}.png"
            ui.page.screenshot(path=file)
            file.with_suffix(".log").write_text(told)
            told = f"{ui.page.url}\n{file}\n{told}"
        report.sections.append(("What the browser and the servers say", told))
    return report
