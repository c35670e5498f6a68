"""Every query of docs/queries.md runs, and Polars and DuckDB give the same answer."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from simmerge_core.operators.actions import ACTION_SETS
from simmerge_core.tables import (
    CHECKPOINTS,
    MERGE_LABELS,
    MERGE_OUTCOMES,
    PAIRWISE_FEATURES,
    STANDALONE_SCORES,
    DataRoot,
    Table,
)

PAGE = Path(__file__).parents[2] / "docs" / "queries.md"
BLOCKS = re.findall(r"^## (.+?)$.*?```python\n(.*?)```.*?```sql\n(.*?)```", PAGE.read_text("utf-8"), re.S | re.M)
IDS = ("math-01", "math-02", "code-01", "instruct-01")
TASKS = ("math", "code", "instruct")
CYCLE = 0.618033988749895


def test_page_has_five_queries() -> None:
    assert len(BLOCKS) == 5


@pytest.mark.parametrize(("python", "sql"), [block[1:] for block in BLOCKS], ids=[block[0] for block in BLOCKS])
def test_both_engines_agree(python: str, sql: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    names: dict[str, pl.DataFrame] = {}
    exec(python, names)
    answer = names["result"]
    other = duckdb.connect().sql(sql).pl()
    assert answer.height > 0
    assert answer.select(pl.all().is_not_null().any()).row(0) == (True,) * answer.width
    # DuckDB counts wins as decimals; the values are what must agree.
    assert_frame_equal(answer, other.cast(dict(answer.schema)), rel_tol=1e-9)


def test_gap_closed_is_that_of_the_metrics(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simmerge_core.metrics import gap_closed

    monkeypatch.chdir(world)
    names: dict[str, pl.DataFrame] = {}
    exec(BLOCKS[2][1], names)
    root = DataRoot(world / "data")
    counted = (pl.col("metric") == "acc,none") & (pl.col("item_set") == "A")
    labels = (
        root.scan(MERGE_LABELS).filter(counted, pl.col("task") == "math", pl.col("action") == "slerp@0.5").collect()
    )
    alone = root.scan(STANDALONE_SCORES).filter(counted, pl.col("task") == "math").collect()
    score = dict(zip(alone["checkpoint"], alone["utility"], strict=True))
    rows = labels.filter(pl.col("kind") == "expert_auxiliary").select("a", "b", "utility").rows()
    experts = [next(c for c in row[:2] if c.startswith("math")) for row in rows]
    others = [next(c for c in row[:2] if not c.startswith("math")) for row in rows]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    expected = gap_closed(
        mean([r[2] for r in rows]), mean([score[e] for e in experts]), mean([score[o] for o in others])
    )
    found = names["result"].filter(pl.col("task") == "math", pl.col("action") == "slerp@0.5")["gap_closed"].item()
    assert found == pytest.approx(expected)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data root of made-up but valid tables; utilities repeat, so that ties occur."""
    folder = tmp_path_factory.mktemp("queries")
    root = DataRoot(folder / "data")
    for id in IDS:
        root.write(CHECKPOINTS, _rows(CHECKPOINTS, [{"domain": _domain(id)}]), checkpoint=id)
        for task in TASKS:
            alone = [_scored(i, 0.7 if _domain(id) == task else 0.3) for i in ("A", "B")]
            root.write(STANDALONE_SCORES, _rows(STANDALONE_SCORES, alone), checkpoint=id, task=task)
    for task in TASKS:
        for id in IDS[1:]:
            pairs = [(a, b) for a, b in combinations(IDS, 2) if b == id]
            ordered = [p for a, b in pairs for p in ((a, b), (b, a))]
            features = [
                {"a": a, "b": b, "b_domain": _domain(b), "kl_ab_median": n * CYCLE % 1}
                for n, (a, b) in enumerate(ordered)
            ]
            root.write(PAIRWISE_FEATURES, _rows(PAIRWISE_FEATURES, features), checkpoint=id, task=task)
            root.write(MERGE_LABELS, _rows(MERGE_LABELS, _labels(pairs, task)), checkpoint=id, task=task)
    outcomes = [
        {"role": role, "model": role, "predicted_utility": predicted, **_scored(i, 0.5 + n * 0.1)}
        for n, (role, predicted) in enumerate((("simmerge", 0.6), ("base", None)))
        for i in ("A", "B")
    ]
    root.write(MERGE_OUTCOMES, _rows(MERGE_OUTCOMES, outcomes), merge_request="math-2way")
    return folder


def _domain(id: str) -> str:
    return id.partition("-")[0]


def _scored(item_set: str, utility: float) -> dict[str, object]:
    return {"metric": "acc,none", "item_set": item_set, "utility": utility}


def _labels(pairs: list[tuple[str, str]], task: str) -> list[dict[str, object]]:
    rows = []
    for a, b in pairs:
        experts = (_domain(a) == task) + (_domain(b) == task)
        kind = ("auxiliary_auxiliary", "expert_auxiliary", "expert_expert")[experts]
        for number, action in enumerate(ACTION_SETS["extended"]):
            for item_set in ("A", "B"):
                utility = round(0.4 + 0.2 * ((number + 1) * (len(a) + len(b) + ord(item_set)) * CYCLE % 1), 1)
                rows.append({"a": a, "b": b, "kind": kind, "action": str(action), **_scored(item_set, utility)})
    return rows


def _rows(table: Table, rows: list[dict[str, object]]) -> pl.DataFrame:
    """`rows` with every other column of the table filled with a value that its schema allows."""
    frame = pl.DataFrame(rows, schema_overrides={k: v for k, v in table.schema.items() if k in rows[0]})
    filled = []
    for column in table.columns:
        if column.name in frame.columns:
            continue
        value: object = max(column.low or 0, 0) + 0.5 * (column.dtype == pl.Float64)
        if column.dtype == pl.String:
            value = column.name
        filled.append(pl.lit(value).cast(column.dtype).alias(column.name))
    return frame.with_columns(filled)
