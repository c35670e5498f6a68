"""``simmerge plan``: ranked merge plans for a task, nothing merged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simmerge_cli.options import DEFAULT_DATA, DataFolder, Json
from simmerge_cli.output import note, print_json, print_table, progress
from simmerge_core.errors import SelectionError, TableError

if TYPE_CHECKING:
    import polars as pl

EPILOG = (
    "\b\nExample:\n"
    "  simmerge plan math-01 code-02 rag-03 --task math\n"
    "  simmerge plan math-01 code-02 rag-03 instruct-01 --task math --task code --k 2 --top 5 --json"
)


def run(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="ID ID …", help="Checkpoints that may be merged.", show_default=False)
    ],
    task: Annotated[
        list[str],
        typer.Option("--task", metavar="T", help="Target task; several are averaged.", show_default=False),
    ],
    k: Annotated[
        int | None, typer.Option("--k", min=2, max=8, help="How many to merge; all those named if not given.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many plans to print.")] = 10,
    how: Annotated[str, typer.Option("--how", help="Several tasks count by their mean or their min.")] = "mean",
    any_domains: Annotated[
        bool, typer.Option("--any-domains", help="Allow several auxiliaries of one domain in a plan.")
    ] = False,
    actions: Annotated[
        str, typer.Option("--actions", metavar="SET", help="Action set whose selector is asked: extended or paper.")
    ] = "extended",
    selector: Annotated[
        Path | None, typer.Option("--selector", metavar="DIR", help="Another trained selector's folder.")
    ] = None,
    data: DataFolder = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Rank merge plans by predicted utility.

    A plan says which checkpoints, in what order, with which operator at each step; nothing is merged.
    """
    if len(set(checkpoints)) != len(checkpoints):
        raise SelectionError("A checkpoint is named twice: name each once.")
    if len(checkpoints) < 2:
        raise SelectionError("A plan needs at least two checkpoints: name the ones that may be merged.")
    if how not in ("mean", "min"):
        raise SelectionError(f"--how {how} is unknown: choose mean or min.")
    features = _features(data, tasks=task, checkpoints=checkpoints)

    from simmerge_core.analysis import selector_folder
    from simmerge_core.planning import search
    from simmerge_core.selector import Selector
    from simmerge_core.tables import DataRoot

    folder = selector or selector_folder(DataRoot(data), actions)
    if not folder.is_dir():
        raise SelectionError(f"There is no selector in {folder}: run `simmerge demo`, or materialize selector first.")
    model = Selector.load(folder)
    with progress(quiet=json) as report:
        ranked = search(
            model,
            features,
            checkpoints,
            task,
            k=k or len(checkpoints),
            top=top,
            combine=how,
            one_per_domain=not any_domains,
            progress=report,
        )
    if json:
        print_json({"selector": str(folder), "selector_key": model.key, "plans": ranked.to_dicts()})
        return
    rows = ranked.select("rank", "order", "actions", "predicted_utility", "uncertainty").rows()
    print_table(("rank", "order", "operators", "predicted utility", "±"), rows)
    best = ranked.row(0, named=True)
    operators = " ".join(f"--operator {action}" for action in best["actions"])
    note(f"{best['search']} search; predicted on {best['task']}, ± is the ensemble's standard deviation.")
    note(f"Execute the best: simmerge merge {' '.join(best['order'])} {operators} --out merged")


def _features(data: Path, *, tasks: Sequence[str], checkpoints: Sequence[str]) -> pl.DataFrame:
    """Rows of the feature table among `checkpoints` on `tasks`, each pair once."""
    import polars as pl

    from simmerge_core.tables import PAIRWISE_FEATURES, DataRoot

    root = DataRoot(data)
    partitions = root.partitions(PAIRWISE_FEATURES)
    if not partitions:
        raise TableError(f"There are no features under {data}: run `simmerge demo`, or materialize pairwise_features.")
    known = {p["task"] for p in partitions}
    for name in tasks:
        if name not in known:
            raise SelectionError(f"Task {name!r} has no features under {data}: known are {', '.join(sorted(known))}.")
    rows = root.scan(PAIRWISE_FEATURES, where=[p for p in partitions if p["task"] in tasks])
    inside = pl.col("a").is_in(checkpoints) & pl.col("b").is_in(checkpoints)
    # Two partitions that were computed at the same time may both hold a pair.
    return rows.filter(inside).unique(["task", "a", "b"], maintain_order=True).collect()
