"""The last good catalog stays in force while the file does not parse."""

from __future__ import annotations

from pathlib import Path

import pytest

from simmerge_core.catalog import Catalog, load_catalog
from simmerge_core.catalog.last_good import load_or_last_good
from simmerge_core.errors import CatalogError

TEXT = """version: 1
base: {id: base, path: base}
checkpoints: [{id: math-01, path: math-01, domain: math}]
tasks:
  - id: math
    probes: probe.jsonl
    benchmarks: [{name: items, metrics: [acc]}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "probe.jsonl").write_text('{"prompt": "1+1="}\n')
    (tmp_path / "catalog.yaml").write_text(TEXT)
    return tmp_path / "catalog.yaml"


def test_a_broken_file_leaves_the_last_good_one_in_force_and_says_why(file: Path) -> None:
    good, wrong = load_or_last_good(file)
    assert wrong is None
    assert good == load_catalog(file)
    file.write_text(TEXT + "checkpoints: [")
    kept, wrong = load_or_last_good(file)
    assert kept == good
    assert wrong is not None
    assert "catalog.yaml" in wrong
    assert "last-good" not in wrong
    file.write_text(TEXT.replace("math-01", "math-02"))
    assert load_or_last_good(file)[0].checkpoint_ids == ("math-02",)
    file.write_text("nonsense")
    assert load_or_last_good(file)[0].checkpoint_ids == ("math-02",)


def test_relative_paths_mean_the_same(file: Path) -> None:
    load_or_last_good(file)
    file.write_text("nonsense")
    assert load_or_last_good(file)[0].checkpoint("math-01").path == file.parent / "math-01"


def test_without_a_good_one_the_error_is_that_of_the_file(file: Path) -> None:
    file.write_text("nonsense")
    with pytest.raises(CatalogError, match="is not a mapping"):
        load_or_last_good(file)


def test_a_catalog_whose_folder_cannot_be_written_is_read_all_the_same(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("simmerge_core.catalog.last_good.write_atomically", refuse)
    assert load_or_last_good(file)[1] is None
    assert not list(file.parent.glob(".*last-good"))


@pytest.mark.parametrize("version", ['!!int ""', "!!bool x", '"\\ud800"'])
def test_whatever_is_wrong_with_the_file_leaves_the_last_good_one_in_force(file: Path, version: str) -> None:
    good, _ = load_or_last_good(file)
    file.write_text(TEXT.replace("version: 1", f"version: {version}"))
    kept, wrong = load_or_last_good(file)
    assert kept == good
    assert wrong is not None


def test_even_what_nobody_thought_of_is_said_in_a_sentence(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, _ = load_or_last_good(file)
    file.write_text(TEXT.replace("math-01", "math-02"))

    def fail(catalog: Catalog) -> Catalog:
        if "math-02" in catalog.checkpoint_ids:
            raise OSError(5, "Input/output error")
        return catalog

    monkeypatch.setattr("simmerge_core.catalog.load.with_discovered", fail)
    kept, wrong = load_or_last_good(file)
    assert kept == good
    assert wrong is not None
    assert "cannot be used (OSError: [Errno 5] Input/output error)" in wrong


def test_what_is_saved_while_the_file_is_read_is_not_kept_as_good(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(catalog: Catalog) -> Catalog:
        file.write_text("nonsense")
        return catalog

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("simmerge_core.catalog.load.with_discovered", save)
        good, wrong = load_or_last_good(file)
    assert wrong is None
    kept, wrong = load_or_last_good(file)
    assert kept == good
    assert wrong is not None
