"""Target tasks as they are written on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from simmerge_core.errors import SelectionError


def weighted_tasks(words: Sequence[str]) -> tuple[list[str], list[float] | None]:
    """Tasks and weights of ``math=2`` and ``code``: no weights where none is given, 1 where only others have one."""
    parts = [word.partition("=") for word in words]
    names = [name for name, _, _ in parts]
    for name in names:
        if names.count(name) > 1:
            raise SelectionError(f"The target task {name!r} is named twice: name each once.")
    if not any(sign for _, sign, _ in parts):
        return names, None
    weights = []
    for name, sign, text in parts:
        try:
            weights.append(float(text) if sign else 1.0)
        except ValueError as error:
            raise SelectionError(f"The weight {text!r} of task {name!r} is no number: write {name}=2.") from error
    return names, weights
