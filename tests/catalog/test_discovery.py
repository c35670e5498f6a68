"""Checkpoint folders that are dropped beside the others: taken when they are whole, in an order of their own."""

from __future__ import annotations

import json
import os
import shutil
import struct
from itertools import permutations
from pathlib import Path

import pytest

from simmerge_core import load_catalog
from simmerge_core.catalog import Catalog
from simmerge_core.catalog.discovery import last_change
from simmerge_core.catalog.last_good import load_or_last_good
from simmerge_core.errors import CatalogError

TEXT = """\
version: 1
base: {{id: base, path: drop/base}}
checkpoints:
  - {{id: zeta, path: elsewhere/zeta, domain: math}}
discover: {discover}
tasks:
  - {{id: math, probes: probe.jsonl, benchmarks: [{{name: some_math, metrics: ["acc,none"]}}]}}
  - {{id: code, probes: probe.jsonl, benchmarks: [{{name: some_code, metrics: ["acc,none"]}}]}}
  - {{id: rag, probes: probe.jsonl, benchmarks: [{{name: some_rag, metrics: ["acc,none"]}}]}}
merge_requests: {requests}
"""


def weights(value: float, name: str = "w") -> bytes:
    header = json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<2f", value, -value)


def checkpoint(folder: Path, *, domain: str | None = "math", value: float = 1.0) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights(value))
    if domain is not None:
        (folder / "simmerge.yaml").write_text(f"domain: {domain}\n")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "probe.jsonl").write_text('{"prompt": "1+1="}\n')
    checkpoint(tmp_path / "drop" / "base", domain=None)
    checkpoint(tmp_path / "elsewhere" / "zeta")
    return tmp_path


def load(home: Path, discover: str = "[{folder: drop}]", requests: str = "[]") -> Catalog:
    (home / "catalog.yaml").write_text(TEXT.format(discover=discover, requests=requests))
    return load_catalog(home / "catalog.yaml")


def left_out(catalog: Catalog) -> dict[str, str]:
    return {left.name: left.why for left in catalog.left_out}


def test_a_folder_that_is_dropped_is_a_checkpoint_and_one_that_goes_is_none(home: Path) -> None:
    assert load(home).checkpoint_ids == ("zeta",)  # the base lies in the same folder and is no expert
    checkpoint(home / "drop" / "math-02")
    checkpoint(home / "drop" / "code-01", domain="code")
    catalog = load(home)
    assert catalog.checkpoint_ids == ("zeta", "code-01", "math-02")
    assert catalog.domains == {"zeta": "math", "code-01": "code", "math-02": "math"}
    assert catalog.checkpoint("math-02").path == home / "drop" / "math-02"
    assert dict(catalog.discovered) == {"code-01": 60.0, "math-02": 60.0}
    shutil.rmtree(home / "drop" / "math-02")
    assert load(home).checkpoint_ids == ("zeta", "code-01")


def test_the_order_of_arrival_does_not_matter(home: Path) -> None:
    for order in permutations(("c-1", "a-1", "b-1")):
        for name in order:
            checkpoint(home / "drop" / name)
        assert load(home).checkpoint_ids == ("zeta", "a-1", "b-1", "c-1")
        for name in order:
            shutil.rmtree(home / "drop" / name)


def test_a_copy_is_taken_when_its_last_byte_is_there(home: Path) -> None:
    source, target = checkpoint(home / "source"), home / "drop" / "math-09"
    target.mkdir()
    said = []
    for name in ("simmerge.yaml", "config.json", "model.safetensors", "tokenizer.json"):
        content = (source / name).read_bytes()
        for part in (content[: len(content) // 2], content):
            catalog = load(home)
            assert catalog.checkpoint_ids == ("zeta",)
            said.append(left_out(catalog)["math-09"])
            (target / name).write_bytes(part)
    assert "no domain" in said[0]
    assert any("neither model.safetensors" in text for text in said)
    assert any("is truncated" in text for text in said)
    assert "has no tokenizer" in said[-2]
    assert all(text.endswith(".") and "\n" not in text for text in said)
    assert load(home).checkpoint_ids == ("zeta", "math-09")


def test_shards_that_the_index_names_are_waited_for(home: Path) -> None:
    folder = checkpoint(home / "drop" / "big-01")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "model-1.safetensors"}}))
    assert "names model-1.safetensors, which is missing" in left_out(load(home))["big-01"]
    (folder / "model-1.safetensors").write_bytes(weights(1.0))
    assert "big-01" in load(home).checkpoint_ids


def test_what_waiting_does_not_help_is_named(home: Path) -> None:
    folder = checkpoint(home / "drop" / "odd-01")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()
    assert "'odd-01': tokenizer.json is a folder: copy the file" in left_out(load(home))["odd-01"]
    shard = f"{'x' * 300}.safetensors"
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    assert f"{folder / shard} cannot be read (File name too long)" in left_out(load(home))["odd-01"]


@pytest.mark.parametrize(
    ("name", "domain", "said"),
    [
        ("12", "math", "checkpoint id '12' cannot be a folder name"),
        ("1e5", "math", "would be read back from a folder name as a number"),
        ("a b", "math", "checkpoint id 'a b' cannot be a folder name"),
        ("a..b", "math", "checkpoint id 'a..b' cannot be a folder name"),
        ("ZETA", "math", "checkpoint id 'ZETA' is used for"),
        ("fine", "../math", "cannot be used"),
        ("fine", "[math", "cannot be used"),
        ("fine", "math\npath: /etc", "cannot be used"),
        ("fine", None, "has no domain"),
        ("fine", "chess", "has domain 'chess', which is no task: known are math, code, rag."),
        ("fine", "base", "has domain 'base', which is no task"),
        ("fine", '!!int ""', "cannot be used (IndexError"),
        ("fine", "!!bool x", "cannot be used (KeyError"),
    ],
)
def test_what_cannot_be_an_entry_is_named_and_keeps_nobody_out(
    home: Path, name: str, domain: str | None, said: str
) -> None:
    checkpoint(home / "drop" / name, domain=domain)
    checkpoint(home / "drop" / "whole")
    catalog = load(home)
    assert catalog.checkpoint_ids == ("zeta", "whole")
    assert said in left_out(catalog)[name]
    assert name in left_out(catalog)[name]


def test_whatever_a_folder_brings_about_keeps_nobody_out(home: Path) -> None:
    folder = checkpoint(home / "drop" / "deep")
    (folder / "model.safetensors").write_bytes(weights(1.0, f"model.layers.{'9' * 5000}.w"))  # no int of so many digits
    checkpoint(home / "drop" / "whole")
    catalog = load(home)
    assert catalog.checkpoint_ids == ("zeta", "whole")
    assert left_out(catalog)["deep"].startswith(f"Checkpoint 'deep': {folder} cannot be used (ValueError: ")


def test_a_domain_for_the_folder_holds_where_a_checkpoint_says_none(home: Path) -> None:
    checkpoint(home / "drop" / "plain", domain=None)
    checkpoint(home / "drop" / "own", domain="code")
    domains = load(home, "[{folder: drop, domain: rag}]").domains
    assert (domains["plain"], domains["own"]) == ("rag", "code")
    assert set(left_out(load(home, "[{folder: drop, domain: chess}]"))) == {"plain"}


def test_files_and_what_begins_with_a_dot_are_no_checkpoints(home: Path) -> None:
    (home / "drop" / "notes.txt").write_text("x")
    checkpoint(home / "drop" / ".math-09.Xy12")
    catalog = load(home)
    assert (catalog.checkpoint_ids, catalog.left_out) == (("zeta",), ())


def test_a_checkpoint_that_is_declared_too_is_what_the_declaration_says(home: Path) -> None:
    catalog = load(home, "[{folder: drop}, {folder: elsewhere, domain: rag}]")
    assert catalog.domains == {"zeta": "math"}
    assert catalog.left_out == ()


def later(home: Path) -> None:
    """Return when the file system's clock has moved on."""
    clock = home / "clock"
    clock.touch()
    before = clock.stat().st_ctime_ns
    while clock.stat().st_ctime_ns == before:
        clock.touch()


@pytest.mark.parametrize(
    ("first", "second"), [("late/x-01", "early/x-01"), ("late/x-01", "late/X-01"), ("early/x-01", "late/X-01")]
)
def test_an_id_stays_with_the_folder_that_was_there_first(home: Path, first: str, second: str) -> None:
    (home / "early").mkdir()
    (home / "late").mkdir()
    discover = "[{folder: early}, {folder: late}]"
    checkpoint(home / first)
    assert load(home, discover).checkpoint("x-01").path == home / first
    later(home)
    checkpoint(home / second)
    catalog = load(home, discover)
    assert catalog.checkpoint_ids == ("zeta", "x-01")
    assert catalog.checkpoint("x-01").path == home / first
    (left,) = catalog.left_out
    assert left.folder == home / second
    assert f"is used for {home / first} already" in left.why
    shutil.rmtree(home / first)
    assert load(home, discover).checkpoint(Path(second).name).path == home / second


def test_a_folder_that_is_not_there_does_not_look_empty(home: Path) -> None:
    checkpoint(home / "drop" / "math-01")
    load(home)
    load_or_last_good(home / "catalog.yaml")
    os.rename(home / "drop", home / "gone")
    with pytest.raises(CatalogError, match="cannot be read"):
        load_catalog(home / "catalog.yaml")
    with pytest.raises(CatalogError, match="cannot be read"):
        load_or_last_good(home / "catalog.yaml")


@pytest.mark.parametrize("denied", ["stat", "iterdir"])
def test_a_checkpoint_that_may_not_be_read_keeps_nobody_out(
    home: Path, monkeypatch: pytest.MonkeyPatch, denied: str
) -> None:
    closed = checkpoint(home / "drop" / "closed")
    checkpoint(home / "drop" / "whole")
    original = getattr(Path, denied)

    def refuse(path: Path, **options: object) -> object:  # as for another user: root may read everything
        if path == closed or closed in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, **options)

    monkeypatch.setattr(Path, denied, refuse)
    catalog = load(home)
    assert catalog.checkpoint_ids == ("zeta", "whole")
    assert "'closed'" in left_out(catalog)["closed"]
    assert "cannot be read (Permission denied): correct its permissions." in left_out(catalog)["closed"]


def test_what_an_editor_leaves_for_a_moment_does_not_take_a_checkpoint_out(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(home / "drop" / "math-01")
    (folder / ".#README.md").symlink_to("somebody@somewhere.1234")  # a lock of Emacs
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([*map(path.joinpath, os.listdir(path)), path / "gone~"]))
    catalog = load(home)
    assert catalog.checkpoint_ids == ("zeta", "math-01")
    assert last_change(folder) > 0
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("nowhere")
    said = left_out(load(home))["math-01"]
    assert f"{folder / 'model.safetensors'} cannot be read (No such file or directory): wait if it is being" in said


def test_a_request_may_name_a_checkpoint_that_comes_later(home: Path) -> None:
    requests = "[{id: pair, task: math, k: 2, checkpoints: [zeta, math-01]}, {id: any, task: math, k: 3}]"
    assert load(home, requests=requests).merge_request("pair").k == 2
    with pytest.raises(CatalogError, match="unknown checkpoint 'math-01'"):
        load(home, discover="[]", requests=requests)


def test_a_known_checkpoint_that_is_damaged_says_so_where_it_is_asked_for(home: Path) -> None:
    folder = checkpoint(home / "drop" / "math-01")
    (folder / "model.safetensors").write_bytes(weights(1.0)[:-1])
    with pytest.raises(CatalogError, match=r"'math-01': model\.safetensors is truncated"):
        load(home).checkpoint("math-01")


def test_the_last_change_is_not_that_of_the_original(home: Path) -> None:
    folder = checkpoint(home / "drop" / "math-01")
    before = last_change(folder)
    os.utime(folder / "config.json", (0, 0))  # as a copy that keeps times
    assert last_change(folder) >= before
