"""Adding to a catalog as text: the new entry is there, and every other line is as it was."""

from __future__ import annotations

import pytest
import yaml

from simmerge_cli.catalog_edit import with_entry

ENTRY = {"id": "math-99", "path": "models/math 99: final", "domain": "math"}

TAIL = "tasks:  # what is scored\n  - id: math\n    probes: p.jsonl\n"

A, B = "{id: a, path: a, domain: math}", "{id: b, path: b, domain: math}"

LAYOUTS = {
    "flow items": f"version: 1\ncheckpoints:\n  - {A}\n  - {B}  # best\n{TAIL}",
    "block items": "checkpoints:\n- id: a\n  path: a\n  domain: math   # note\n\n# the tasks follow\n" + TAIL,
    "deep indent": "checkpoints:\n      - id: a\n        path: a\n        domain: math\nversion: 1\n",
    "quoted last value": 'checkpoints:\n  - id: a\n    domain: math\n    path: "a # b"\n' + TAIL,
    "last key of the file, no newline": "version: 1\ncheckpoints:\n  - {id: a, path: a, domain: math}",
    "empty flow": "version: 1\ncheckpoints: []  # none yet\n" + TAIL,
    "non-empty flow": "version: 1\ncheckpoints: [{id: a, path: a, domain: math}]\n" + TAIL,
    "flow over lines": f"checkpoints: [\n  {A},\n  {B},\n]\n{TAIL}",
    "no value": "version: 1\ncheckpoints:\n" + TAIL,
    "no value, comment": "version: 1\ncheckpoints:  # none yet\n" + TAIL,
    "no value, end of file": "version: 1\ncheckpoints:",
    "no key": "version: 1\n" + TAIL,
    "no key, no newline": "version: 1",
    "windows line ends": "version: 1\r\ncheckpoints:\r\n  - {id: a, path: a, domain: math}\r\n# end\r\n",
    "anchors and merges": "x: &d {domain: math}\ncheckpoints:\n  - <<: *d\n    id: a\n    path: a\n" + TAIL,
    "alias as last item": f"first: &f {A}\ncheckpoints:\n  - {B}\n  - *f\n{TAIL}",
    "folded text": "checkpoints:\n  - id: a\n    path: >-\n      a\n    domain: math\n" + TAIL,
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_entry_is_added_and_the_rest_stays(text: str) -> None:
    before = yaml.safe_load(text)
    added = with_entry(text, ENTRY)
    after = yaml.safe_load(added)

    assert after.pop("checkpoints") == [*(before.pop("checkpoints", None) or []), ENTRY]
    assert after == before
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    assert all(comment in added for comment in comments)
    # Every old line is there, in order, but for the one that a flow sequence is changed in.
    lines = iter(added.splitlines())
    kept = [line for line in text.splitlines() if not (line.startswith("checkpoints: [") or line.endswith("},"))]
    assert all(line in lines for line in kept)


def test_line_ends_are_kept() -> None:
    added = with_entry(LAYOUTS["windows line ends"], ENTRY)
    assert added.count("\r\n") == added.count("\n") == 5
