"""Probe prompts: reading them, and the key that names a probe set with its settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from simmerge_core.catalog.model import ProbeSettings
from simmerge_core.errors import ProbeError
from simmerge_core.files import hash_json

RECORD_VERSION = 1
"""Raised when the meaning of a record's numbers changes: records of another version are not read."""


def read_prompts(path: str | Path, *, limit: int | None = None) -> list[str]:
    """Read the first `limit` prompts of a JSON Lines file with a text ``prompt`` in every line.

    Parameters
    ----------
    path
        The file; blank lines are skipped, keys other than ``prompt`` are ignored (labels are never read, App. B.1).
    limit
        Most prompts to read; all when None.

    Raises
    ------
    ProbeError
        Naming the file and line: no such file, no prompts, a line that is not JSON, a missing or empty prompt.
    """
    path = Path(path)
    if not path.is_file():
        raise ProbeError(f'There is no probe file {path}: write one {{"prompt": ...}} per line into it.')
    prompts: list[str] = []
    with path.open(encoding="utf-8") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if limit is not None and len(prompts) >= limit:
                    break
                if line.strip():
                    prompts.append(_prompt(path, number, line))
        except UnicodeDecodeError as error:
            raise ProbeError(f"Probe file {path} is not UTF-8 text ({error.reason}): save it as UTF-8.") from error
    if not prompts:
        raise ProbeError(f'Probe file {path} has no prompts: write one {{"prompt": ...}} per line into it.')
    return prompts


def _prompt(path: Path, number: int, line: str) -> str:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise ProbeError(
            f"Probe file {path}, line {number} is not JSON ({reason}): write one object per line."
        ) from error
    prompt = entry.get("prompt") if isinstance(entry, dict) else None
    if not isinstance(prompt, str):
        raise ProbeError(f"Probe file {path}, line {number} has no text under `prompt`: add it.")
    if not prompt.strip():
        raise ProbeError(f"Probe file {path}, line {number} has an empty prompt: remove the line or fill it.")
    return prompt


def probe_key(prompts: Sequence[str], settings: ProbeSettings) -> str:
    """SHA-256 (hex) of the prompts that are used, what is kept of them, and the version of the record.

    Two records can be compared exactly when their keys are equal. The batch size is not part of it: padding does not
    matter beyond the last bits of float32.
    """
    return hash_json(
        {
            "version": RECORD_VERSION,
            "prompts": list(prompts[: settings.count]),
            "settings": settings.model_dump(mode="json"),
        }
    )
