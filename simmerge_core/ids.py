"""Names that become folder names: checkpoints, tasks, merge requests."""

from __future__ import annotations

import re

from simmerge_core.errors import CatalogError

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")


def validate_id(kind: str, value: str) -> str:
    """Return `value` if it is a slug that can safely be a folder name, else raise.

    A slug starts with a letter or digit, holds letters, digits, ``_``, ``.`` and ``-``, has at least one letter (a
    Hive reader would turn an all-numeric partition value into an integer), no ``..`` and at most 96 characters.

    Raises
    ------
    CatalogError
        Naming the kind and the value.
    """
    if not _SLUG.fullmatch(value) or ".." in value or not any(c.isalpha() for c in value):
        raise CatalogError(
            f"{kind} id {value!r} cannot be a folder name: use letters, digits, '_', '.' and '-', "
            "starting with a letter or digit, with at least one letter and no '..'."
        )
    return value
