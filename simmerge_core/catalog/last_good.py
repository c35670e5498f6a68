"""The last catalog that could be read, kept beside the file: work in progress outlives a slip of the editor."""

from __future__ import annotations

import contextlib
from pathlib import Path

from simmerge_core.catalog.load import load_catalog, read_text
from simmerge_core.catalog.model import Catalog
from simmerge_core.errors import CatalogError
from simmerge_core.files import write_atomically


def load_or_last_good(path: str | Path) -> tuple[Catalog, str | None]:
    """The catalog, or where it cannot be read the last one that could, with the reason.

    The copy lies in the catalog's own folder, where relative paths mean the same; where that cannot be written there
    is none.

    Raises
    ------
    CatalogError
        If the catalog cannot be read, and never could be.
    """
    file = Path(path).expanduser().absolute()
    copy = file.with_name(f".{file.name}.last-good")
    try:
        text = read_text(file)  # once: what is kept is what was found good, whoever saves meanwhile
        catalog = load_catalog(file, text=text)
    except CatalogError as error:
        if not copy.is_file():
            raise
        try:
            return load_catalog(file, text=copy.read_text(encoding="utf-8")), str(error)
        except (CatalogError, OSError, ValueError):
            raise error from None  # a probe file that is gone, say, is gone for both
    with contextlib.suppress(OSError):
        content = text.encode("utf-8")
        if not copy.is_file() or copy.read_bytes() != content:
            with write_atomically(copy) as temporary:
                temporary.write_bytes(content)
    return catalog, None
