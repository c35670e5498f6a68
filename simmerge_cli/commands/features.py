"""``simmerge features``: rows of the feature table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simmerge_cli.options import DEFAULT_DATA, DataFolder, Json
from simmerge_cli.output import note, print_json, print_table
from simmerge_core.errors import TableError

if TYPE_CHECKING:
    import polars as pl

    from simmerge_core.storage import Location

EPILOG = (
    "\b\nExample:\n"
    "  simmerge features --task math --pair math-01 code-02\n"
    "  simmerge features --task math --out features.csv"
)

_SHOWN = (
    "kl_ab_mean",
    "kl_ba_mean",
    "activation_cosine_mean",
    "attention_cosine_mean",
    "weight_cosine",
    "weight_l2",
    "weight_norm_a",
    "weight_norm_b",
    "task_vector_cosine",
)
_MOST_ROWS = 40


def run(
    task: Annotated[str | None, typer.Option("--task", metavar="T", help="Only pairs on this task's probes.")] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option("--pair", metavar="A B", help="Only this pair, in both orders.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write all columns to a .csv, .parquet or .json file.")
    ] = None,
    data: DataFolder = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Print or export rows of the feature table.

    A row is one ordered pair of checkpoints on the probes of one task.
    """
    import polars as pl

    from simmerge_core.tables import PAIRWISE_FEATURES, DataRoot

    if out is not None and out.suffix not in (".csv", ".parquet", ".json"):
        raise TableError(f"Cannot tell the format of {out}: let its name end with .csv, .parquet or .json.")
    root = DataRoot(data)
    partitions = root.partitions(PAIRWISE_FEATURES)
    if not partitions:
        raise TableError(f"There are no features under {data}: run `simmerge demo`, or materialize pairwise_features.")
    _check_known("task", [task] if task else [], {p["task"] for p in partitions}, data)
    rows = root.scan(PAIRWISE_FEATURES, where=[p for p in partitions if task in (None, p["task"])])
    if pair is not None:
        _check_known("checkpoint", pair, _checkpoints(rows), data)
        rows = rows.filter(pl.col("a").is_in(pair) & pl.col("b").is_in(pair))
    # Two partitions that were computed at the same time may both hold a pair.
    frame = rows.unique(["task", "a", "b"], keep="first", maintain_order=True).sort("task", "a", "b").collect()
    if out is not None:
        _export(frame, out)
        note(f"{frame.height} rows of {frame.width} columns are in {out}.")
    if json:
        print_json(frame.to_dicts())
    elif out is None:
        shown = ("task", "a", "b", *(name for name in _SHOWN if name in frame.columns))
        print_table(shown, frame.select(shown).head(_MOST_ROWS).rows())
        more = f"; the first {_MOST_ROWS} of {frame.height} rows" if frame.height > _MOST_ROWS else ""
        note(f"{len(shown)} of {frame.width} columns{more}: --json prints and --out writes all.")


def _checkpoints(rows: pl.LazyFrame) -> set[str]:
    ids = rows.select("a", "b").collect()
    return {*ids["a"].to_list(), *ids["b"].to_list()}


def _check_known(kind: str, wanted: list[str] | tuple[str, ...], known: set[str], data: Location) -> None:
    for name in wanted:
        if name not in known:
            raise TableError(f"Features under {data} have no {kind} {name!r}: known are {', '.join(sorted(known))}.")


def _export(frame: pl.DataFrame, path: Path) -> None:
    from simmerge_core.files import write_atomically

    with write_atomically(path) as temporary:
        if path.suffix == ".csv":
            frame.write_csv(temporary)
        elif path.suffix == ".parquet":
            frame.write_parquet(temporary)
        else:
            frame.write_json(temporary)
