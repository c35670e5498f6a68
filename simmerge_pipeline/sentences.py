"""Long lists in sentences that people read."""

from __future__ import annotations

from collections.abc import Sequence


def some(names: Sequence[str], limit: int) -> str:
    """The first names, and how many there are besides."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
