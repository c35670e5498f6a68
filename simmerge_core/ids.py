"""Names that become folder names: checkpoints, tasks, merge requests."""

from __future__ import annotations

import re

from simmerge_core.errors import CatalogError

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
# What readers of Hive folders take for a number, a truth value or a missing one.
_VALUE = re.compile(r"[0-9.]+e[+-]?[0-9]+|inf|infinity|nan|true|false|null|none", re.IGNORECASE)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def validate_id(kind: str, value: str) -> str:
    """Return `value` if it is a slug that can safely be a folder name, else raise.

    A slug starts with a letter or digit, holds letters, digits, ``_``, ``.`` and ``-``, has at least one letter, no
    ``..`` and at most 96 characters, and is nothing that a Hive reader would turn into another type: ``12``, ``1e5``,
    ``inf`` and ``true`` would come back as numbers and truth values. A ``day`` is a date, ``2026-01-31``, and may come
    back as one.

    Raises
    ------
    CatalogError
        Naming the kind and the value.
    """
    if kind == "day" and _DAY.fullmatch(value):
        return value
    if not _SLUG.fullmatch(value) or ".." in value or not any(c.isalpha() for c in value):
        raise CatalogError(
            f"{kind} id {value!r} cannot be a folder name: use letters, digits, '_', '.' and '-', "
            "starting with a letter or digit, with at least one letter and no '..'."
        )
    if _VALUE.fullmatch(value):
        raise CatalogError(
            f"{kind} id {value!r} would be read back from a folder name as a number or a truth value: choose a word."
        )
    return value
