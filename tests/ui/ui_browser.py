"""Debian's Chromium, driven by Playwright, in a new empty profile."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

WIDTH, HEIGHT = 1280, 800

# Nothing but the page itself is to be loaded.
_ARGUMENTS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    """The browser that SIMMERGE_CHROMIUM names, or the one on the path."""
    return os.environ.get("SIMMERGE_CHROMIUM") or shutil.which("chromium")


def missing() -> str | None:
    """Why no browser can be driven here, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install -e '.[ui]'"
    if chromium() is None:
        return "no Chromium on the path: apt-get install chromium, or name one in SIMMERGE_CHROMIUM"
    return None


@contextmanager
def browser(profile: Path) -> Iterator[BrowserContext]:
    """A browser whose profile is a new folder, since what was clicked away before must not be missing here."""
    from playwright.sync_api import sync_playwright

    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium(),
            headless=True,
            args=[*_ARGUMENTS, *as_root],
            chromium_sandbox=not as_root,
            viewport={"width": WIDTH, "height": HEIGHT},
        )
        try:
            yield context
        finally:
            context.close()
