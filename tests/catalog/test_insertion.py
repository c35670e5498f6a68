"""Adding to a catalog as text: the new entry is there, and every other line is as it was."""

from __future__ import annotations

import pytest
import yaml

from simmerge_core.catalog.insertion import with_entry
from simmerge_core.errors import CatalogError

ENTRIES = {
    "checkpoints": {"id": "math-99", "path": "models/math 99: final", "domain": "math"},
    "merge_requests": {
        "id": "both",
        "tasks": ["math", "code"],
        "weights": [2.0, 0.5],
        "k": 2,
        "checkpoints": ["math-01", "0x1F", "on"],  # the last two would be read back as a number and a truth value
        "policy": "lints",
    },
}

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
    "lists in block items": "checkpoints:\n  - id: a\n    weights: [2, 1]\n    tasks:\n      - x\n      - y  # both\n"
    + TAIL,
    "lists in flow items": f"checkpoints:\n  - {{id: a, tasks: [x, y],\n     weights: [1, 2]}}  # two lines\n{TAIL}",
    "empty flow with a comment in it": "version: 1\ncheckpoints: [  # none yet\n  ]\n" + TAIL,
    "empty flow on its own line": "version: 1\ncheckpoints:\n  []\n" + TAIL,
    "empty flow, windows line ends": "version: 1\r\ncheckpoints: []\r\n# end\r\n",
    "empty flow, end of file": "version: 1\ncheckpoints: []",
    "quoted key": 'version: 1\n"checkpoints" : []\n' + TAIL,
    "indented file": "  version: 1\n  x: 2\n",
    "indented file, no value": "  version: 1\n  checkpoints:\n  x: 2\n",
    "marked document, no key": "%YAML 1.1\n---\nversion: 1\n# end\n...\n",
    "marked document": f"---\ncheckpoints:\n  - {A}\n...\n",
    "the word elsewhere": f"x: {{checkpoints: [a]}}\ny: checkpoints\ncheckpoints:\n  - {A}\nz: checkpoints\n",
    "no final newline, flow": f"checkpoints: [{A}]",
    "folded text": "checkpoints:\n  - id: a\n    path: >-\n      a\n    domain: math\n" + TAIL,
}


@pytest.mark.parametrize("key", ENTRIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_entry_is_added_and_the_rest_stays(layout: str, key: str) -> None:
    text, entry = LAYOUTS[layout].replace("checkpoints", key), ENTRIES[key]
    before = yaml.safe_load(text)
    added = with_entry(text, key, entry)
    after = yaml.safe_load(added)

    assert after.pop(key) == [*(before.pop(key, None) or []), entry]
    assert after == before
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    assert all(comment in added for comment in comments)
    # Every old line is there, in order, but for the one that a flow sequence is changed in.
    lines = iter(added.splitlines())
    flow = (f"{key}: [", f'"{key}" : [', "  []")
    kept = [line for line in text.splitlines() if not (line.startswith(flow) or line.endswith("},"))]
    assert all(line in lines for line in kept)
    assert ("\r\n" in text) == ("\r\n" in added)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_entries_are_added_one_after_the_other(layout: str) -> None:
    text = LAYOUTS[layout]
    more = [{"id": f"more-{number}", "path": "p", "domain": "math"} for number in range(3)]
    for entry in more:
        text = with_entry(text, "checkpoints", entry)
    assert yaml.safe_load(text)["checkpoints"][-3:] == more


def test_line_ends_are_kept() -> None:
    for key, entry in ENTRIES.items():
        added = with_entry(LAYOUTS["windows line ends"], key, entry)
        assert added.count("\r\n") == added.count("\n") == (5 if key == "checkpoints" else 6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{version: 1, checkpoints: []}\n", "written as one {…} mapping"),
        ("first: &f [1]\ncheckpoints: *f\n", "does not write the list checkpoints out"),
        ("version: 1\ncheckpoints: null\n", "does not write the list checkpoints out"),
        ("checkpoints: &f [1]\nsecond: *f\n", "so that a program cannot add to its checkpoints"),
        ("version: 1\ntext: |\n  no newline", "so that a program cannot add to its checkpoints"),
    ],
)
def test_what_would_change_something_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(CatalogError) as caught:
        with_entry(text, "checkpoints", ENTRIES["checkpoints"], name="Catalog c.yaml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("Catalog c.yaml ")
    assert "\n" not in str(caught.value)
