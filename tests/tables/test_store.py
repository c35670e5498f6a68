"""The data root: validation, atomic replacement, and reading a whole table back with any Hive reader."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from simmerge_core.errors import CatalogError, TableError
from simmerge_core.files import replaced_folder, write_atomically
from simmerge_core.tables import STANDALONE_SCORES, TABLES, Column, DataRoot, Table
from simmerge_core.writers import writer

SCORE = {
    "fingerprint": "f",
    "benchmark": "b",
    "metric": "acc,none",
    "item_set": "A",
    "seed": 0,
    "utility": 0.5,
    "stderr": None,
    "n": 10,
    "evaluation_key": "k",
}


def _frame(**changes: object) -> pl.DataFrame:
    row = SCORE | changes
    return pl.DataFrame([row], schema={c: STANDALONE_SCORES.schema[c] for c in row})


def test_round_trip_and_hive_reading(tmp_path: Path) -> None:
    data = DataRoot(tmp_path)
    for checkpoint in ("a-1", "b.2"):
        data.write(STANDALONE_SCORES, _frame(), checkpoint=checkpoint, task="math")
    ours = data.scan(STANDALONE_SCORES).collect()
    assert ours.columns[:2] == ["checkpoint", "task"]
    hive = pl.read_parquet(tmp_path / "standalone_scores/**/*.parquet", hive_partitioning=True)
    assert ours.sort("checkpoint").equals(hive.select(ours.columns).sort("checkpoint"))
    assert data.partitions(STANDALONE_SCORES) == [
        {"checkpoint": "a-1", "task": "math"},
        {"checkpoint": "b.2", "task": "math"},
    ]
    assert data.read(STANDALONE_SCORES, checkpoint="a-1", task="math").height == 1


def test_absent_tables_are_empty_frames_and_absent_partitions_are_errors(tmp_path: Path) -> None:
    data = DataRoot(tmp_path)
    assert data.scan(STANDALONE_SCORES).collect().is_empty()
    with pytest.raises(TableError, match="materialize it first"):
        data.read(STANDALONE_SCORES, checkpoint="a", task="t")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"utility": float("nan")}, "'utility' has 1 NaNs"),
        ({"stderr": -0.1}, "below its least value"),
        ({"benchmark": None}, "'benchmark' has 1 nulls"),
        ({"n": 0}, "below its least value"),
    ],
)
def test_bad_values_are_refused_and_leave_the_earlier_file(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    data = DataRoot(tmp_path)
    path = data.write(STANDALONE_SCORES, _frame(), checkpoint="a", task="t")
    before = path.read_bytes()
    with pytest.raises(TableError, match=said):
        data.write(STANDALONE_SCORES, _frame(**change), checkpoint="a", task="t")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_missing_unknown_and_repeated_rows(tmp_path: Path) -> None:
    data = DataRoot(tmp_path)
    with pytest.raises(TableError, match="missing columns \\['n'\\]"):
        data.write(STANDALONE_SCORES, _frame().drop("n"), checkpoint="a", task="t")
    with pytest.raises(TableError, match="repeats a row"):
        data.write(STANDALONE_SCORES, pl.concat([_frame(), _frame()]), checkpoint="a", task="t")
    with pytest.raises(TableError, match="partitioned by"):
        data.write(STANDALONE_SCORES, _frame(), task="t")


@pytest.mark.parametrize("value", ["../x", "a/b", "", "12", ".hidden", "a..b", "x" * 97, "1e5", "True"])
def test_ids_cannot_escape_the_root(tmp_path: Path, value: str) -> None:
    with pytest.raises(CatalogError):
        DataRoot(tmp_path).path(STANDALONE_SCORES, checkpoint=value, task="t")


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(RuntimeError), write_atomically(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with replaced_folder(target) as temporary:
        (temporary / "x").write_text("1")
    with pytest.raises(RuntimeError), replaced_folder(target) as temporary:
        (temporary / "x").write_text("2")
        raise RuntimeError
    assert (target / "x").read_text() == "1"
    with replaced_folder(target) as temporary:
        (temporary / "y").write_text("3")
    assert [p.name for p in target.iterdir()] == ["y"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_many_replace_at_once_is_one_of_theirs(tmp_path: Path) -> None:
    target = tmp_path / "folder"

    def write(number: int) -> None:
        for _ in range(50):
            with replaced_folder(target) as temporary:
                for name in ("a", "b"):
                    (temporary / name).write_text(str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))  # none of them fails
    assert (target / "a").read_text() == (target / "b").read_text()
    assert list(tmp_path.iterdir()) == [target]


def test_folders_that_killed_writers_left_are_swept(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = int(gone.stdout)
    left = tmp_path / f".folder.{writer(dead)}.0a.tmp"
    living = tmp_path / f".folder.{writer(os.getpid())}.0b.tmp"
    aside = tmp_path / f".folder.{writer(dead)}.0c.old"
    elsewhere = tmp_path / f".folder.other-host~{dead}.0d.tmp"
    for folder in (left, living, aside, elsewhere):
        folder.mkdir()
    (aside / "kept").write_text("1")
    target = tmp_path / "folder"
    with pytest.raises(RuntimeError), replaced_folder(target):
        raise RuntimeError
    assert (target / "kept").read_text() == "1"  # the killed writer had only moved it aside
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([living.name, elsewhere.name, target.name])


def test_every_column_is_described() -> None:
    for table in TABLES.values():
        assert table.row
        assert set(table.key) <= set(table.schema)
        for column in table.columns:
            assert column.description, (table.name, column.name)


def test_a_wrong_type_is_refused(tmp_path: Path) -> None:
    table = Table("t", (), "a number", (Column("x", pl.Int64, "a number"),))
    with pytest.raises(TableError, match="another type"):
        DataRoot(tmp_path).write(table, pl.DataFrame({"x": ["seven"]}))


@pytest.mark.parametrize("keep", [0, 7, 300])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    data = DataRoot(tmp_path)
    path = data.write(STANDALONE_SCORES, _frame(), checkpoint="a", task="t")
    path.write_bytes(path.read_bytes()[:keep])
    for read in (lambda: data.scan(STANDALONE_SCORES), lambda: data.read(STANDALONE_SCORES, checkpoint="a", task="t")):
        with pytest.raises(TableError, match=r"checkpoint=a/task=t/part.parquet is damaged"):
            read()


@pytest.mark.parametrize("name", ["data", "./data", "linked", "../inside/data", "a folder [1]%20é"])
def test_partitions_are_told_apart_wherever_the_root_lies(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside" / "data").mkdir(parents=True)
    (tmp_path / "inside" / "linked").symlink_to("data")
    monkeypatch.chdir(tmp_path / "inside")
    data = DataRoot(name)
    for number, checkpoint in enumerate(("b-1", "a-1")):
        data.write(STANDALONE_SCORES, _frame(utility=0.25 * number), checkpoint=checkpoint, task="math")
    found = data.scan(STANDALONE_SCORES)
    assert found.select("checkpoint", "utility").collect().rows() == [("a-1", 0.25), ("b-1", 0.0)]
    assert found.filter(pl.col("checkpoint") == "b-1").select("task", "utility").collect().rows() == [("math", 0.0)]
    assert found.select(pl.len()).collect().item() == 2
