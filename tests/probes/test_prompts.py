"""Reading prompts, and the key of a probe set."""

from __future__ import annotations

from pathlib import Path

import pytest

from simmerge_core.catalog import ProbeSettings
from simmerge_core.errors import ProbeError
from simmerge_core.probes import probe_key, read_prompts


def test_reads_prompts_and_ignores_labels(tmp_path: Path) -> None:
    file = tmp_path / "probes.jsonl"
    file.write_text('{"prompt": "1+1=", "answer": "2"}\n\n{"prompt": "ü "}\n{"prompt": "c"}\n', encoding="utf-8")
    assert read_prompts(file) == ["1+1=", "ü ", "c"]
    assert read_prompts(file, limit=2) == ["1+1=", "ü "]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no prompts"),
        ("\n\n", "has no prompts"),
        ('{"prompt": "a"}\n{"prompt"', "line 2 is not JSON"),
        ('{"question": "a"}', "line 1 has no text under `prompt`"),
        ("[1]", "line 1 has no text under `prompt`"),
        ('{"prompt": ' + "9" * 5000 + "}", "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('{"prompt": 3}', "line 1 has no text under `prompt`"),
        ('{"prompt": "  "}', "line 1 has an empty prompt"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "probes.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ProbeError, match=message) as error:
        read_prompts(file)
    assert str(file) in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"no probe file .*absent\.jsonl"):
        read_prompts(tmp_path / "absent.jsonl")


def test_key_depends_on_used_prompts_and_settings() -> None:
    settings = ProbeSettings(count=2)
    key = probe_key(["a", "b"], settings)
    assert key == probe_key(["a", "b", "never used"], settings)
    assert len({key, probe_key(["b", "a"], settings), probe_key(["a", "b"], ProbeSettings(count=2, top_logits=4))}) == 3


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "probes.jsonl"
    file.write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(ProbeError, match=r"probes\.jsonl is not UTF-8"):
        read_prompts(file)
