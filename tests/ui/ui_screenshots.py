"""Pictures for docs/, taken where the tests look anyway."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

_COLOURS = 128  # of flat pages; more make larger files that look the same
_SETTLED = 1500  # milliseconds for what fades in

_HIDE = """(paths) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = texts.nextNode(); text; text = texts.nextNode())
    for (const path of paths) text.data = text.data.replaceAll(path, "…");
}"""


@dataclass(frozen=True)
class Screenshots:
    """A folder of pictures; without one nothing is taken."""

    folder: Path | None
    hidden: tuple[Path, ...] = ()
    """Folders of this machine, whose names say nothing to a reader; the longest first."""

    def take(self, page: Page, name: str, *, height: int | None = None, settled: int = _SETTLED) -> None:
        """Write ``<name>.png``, as wide as the window and at most `height` pixels high, after `settled` ms."""
        if self.folder is None:
            return
        from PIL import Image

        page.wait_for_timeout(settled)
        page.evaluate(_HIDE, [str(path) for path in self.hidden])
        picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
        if height is not None:
            picture = picture.crop((0, 0, picture.width, height))
        self.folder.mkdir(parents=True, exist_ok=True)
        picture.quantize(_COLOURS).save(self.folder / f"{name}.png", optimize=True)
