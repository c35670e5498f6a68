"""The store keeps what was put, whole or not at all, from any number of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simmerge_core.errors import EvaluationError
from simmerge_core.evaluation import SCORE_SCHEMA, EvaluationStore


def frame(utility: float, rows: int = 2) -> pl.DataFrame:
    values = [("b", "acc,none", f"set{i}", 0, utility + i, None if i else 0.5, 10) for i in range(rows)]
    return pl.DataFrame(values, schema=SCORE_SCHEMA, orient="row")


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def test_what_is_put_is_found_by_others(tmp_path: Path) -> None:
    store = EvaluationStore(tmp_path / "evaluations")
    assert store.get("k") is None
    assert len(store) == 0
    store.put("k", frame(0.25))
    other = EvaluationStore(tmp_path / "evaluations")
    found = other.get("k")
    assert found is not None
    assert found.equals(frame(0.25))
    assert "k" in other
    assert "l" not in other
    store.put("l", frame(0.5))
    assert "l" in other
    assert other.missing(["m", "k", "m", "l"]) == ["m"]


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.text("abcdef", min_size=1), st.tuples(st.floats(-1e9, 1e9), st.integers(1, 4)), max_size=12))
def test_round_trip_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, tuple[float, int]]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    with EvaluationStore(folder).batch() as store:
        for key, (utility, rows) in entries.items():
            store.put(key, frame(utility, rows))
    assert len(segments(folder)) == bool(entries)
    read = EvaluationStore(folder)
    for key, (utility, rows) in entries.items():
        found = read.get(key)
        assert found is not None
        assert found.equals(frame(utility, rows))
    together = read.frame([*entries, "absent"])
    assert together.columns == ["evaluation_key", *SCORE_SCHEMA]
    assert together["evaluation_key"].unique(maintain_order=True).to_list() == list(entries)


def test_a_batch_writes_few_files_and_survives_an_error(tmp_path: Path) -> None:
    store = EvaluationStore(tmp_path)
    with pytest.raises(RuntimeError), store.batch():
        for i in range(50):
            store.put(f"k{i}", frame(i))
        raise RuntimeError
    assert len(segments(tmp_path)) == 1
    assert len(EvaluationStore(tmp_path)) == 50
    store.put("after", frame(1))
    assert len(segments(tmp_path)) == 2


def test_the_first_content_of_a_key_counts(tmp_path: Path) -> None:
    store = EvaluationStore(tmp_path)
    store.put("k", frame(0.25))
    store.put("k", frame(0.75))
    EvaluationStore(tmp_path).put("k", frame(0.75))
    found = EvaluationStore(tmp_path).get("k")
    assert found is not None
    assert found["utility"][0] == 0.25
    assert len(segments(tmp_path)) <= 2


@pytest.mark.parametrize(
    "bad",
    [
        frame(0.5).with_columns(utility=pl.lit(float("nan"))),
        frame(0.5).drop("n"),
        frame(0.5).cast({"seed": pl.Int32}),
        frame(0.5).clear(),
    ],
)
def test_unfit_frames_are_refused(bad: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be stored"):
        EvaluationStore(tmp_path).put("k", bad)
    assert segments(tmp_path) == []


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_torn_segment_is_named(keep: int, tmp_path: Path) -> None:
    EvaluationStore(tmp_path).put("k", frame(0.25))
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EvaluationError, match=rf"{path.name} is damaged.*delete it"):
        EvaluationStore(tmp_path).get("k")


def test_a_foreign_file_is_named_and_leftovers_are_passed_over(tmp_path: Path) -> None:
    EvaluationStore(tmp_path).put("k", frame(0.25))
    (tmp_path / ".segment-1.parquet.abc.tmp").write_bytes(b"half")
    (tmp_path / ".hidden.parquet").write_bytes(b"half")
    assert "k" in EvaluationStore(tmp_path)
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "mine.parquet")
    with pytest.raises(EvaluationError, match=r"mine\.parquet is not an evaluation segment"):
        EvaluationStore(tmp_path).get("k")


def test_compaction_loses_nothing_beside_readers(tmp_path: Path) -> None:
    writer = EvaluationStore(tmp_path)
    for i in range(8):
        writer.put(f"k{i}", frame(i))
    reader = EvaluationStore(tmp_path)
    assert "k0" in reader
    late = EvaluationStore(tmp_path)
    late.put("late", frame(9))
    writer.compact()
    assert len(segments(tmp_path)) == 1
    assert reader.missing([*(f"k{i}" for i in range(8)), "late"]) == []
    assert len(EvaluationStore(tmp_path)) == 9


def test_many_threads_with_a_store_each(tmp_path: Path) -> None:
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with EvaluationStore(tmp_path).batch(seconds=0.0) as store:
                for i in range(12):
                    store.put(f"{number}-{i}", frame(i))
                    store.missing([f"{(number + 1) % 4}-{i}"])
                store.compact()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(EvaluationStore(tmp_path)) == 48


def test_a_killed_writer_leaves_whole_entries_only(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "import polars as pl\n"
        "from simmerge_core.evaluation import SCORE_SCHEMA, EvaluationStore\n"
        f"store = EvaluationStore({str(tmp_path)!r})\n"
        "row = [('b', 'm', 'A', 0, 0.5, 0.1, 3), ('b', 'm', 'B', 0, 0.5, 0.1, 3)]\n"
        "with store.batch(seconds=0.05):\n"
        "    for i in range(10**6):\n"
        "        store.put(f'k{i}', pl.DataFrame(row, schema=SCORE_SCHEMA, orient='row'))\n"
        "        if i == 200: print('go', flush=True)\n"
        "        time.sleep(0.001)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"go\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = EvaluationStore(tmp_path)
    assert len(store) > 20
    keys = [f"k{i}" for i in range(len(store))]
    assert store.missing(keys) == []
    assert store.frame(keys).height == 2 * len(store)
