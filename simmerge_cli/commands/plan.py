"""``simmerge plan``: ranked merge plans for a task, nothing merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simmerge_cli.options import DEFAULT_DATA, DataFolder, Json
from simmerge_cli.output import note, print_json, print_table, progress
from simmerge_cli.plan_text import explanation_table, settlement_notes, target_text, unseen_note
from simmerge_cli.targets import weighted_tasks
from simmerge_core.errors import SelectionError, TableError

if TYPE_CHECKING:
    import polars as pl

    from simmerge_core.storage import Location

EPILOG = (
    "\b\nExample:\n"
    "  simmerge plan math-01 code-02 rag-03 --task math --explain\n"
    "  simmerge plan math-01 code-02 rag-03 instruct-01 --task math=2 --task code=1 --k 2 --top 5 --json"
)


def run(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="ID ID …", help="Checkpoints that may be merged.", show_default=False)
    ],
    task: Annotated[
        list[str],
        typer.Option(
            "--task", metavar="T[=W]", help="Target task; several are averaged, by weights W.", show_default=False
        ),
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
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt", help="For a selector of another catalog: standardise behaviour on all pairs of this one."
        ),
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say which feature groups moved the operators of the best plan.")
    ] = False,
    data: DataFolder = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Rank merge plans by predicted utility, with calibrated intervals.

    A plan says which checkpoints, in what order, with which operator at each step; nothing is merged.
    """
    if len(set(checkpoints)) != len(checkpoints):
        raise SelectionError("A checkpoint is named twice: name each once.")
    if len(checkpoints) < 2:
        raise SelectionError("A plan needs at least two checkpoints: name the ones that may be merged.")
    if how not in ("mean", "min"):
        raise SelectionError(f"--how {how} is unknown: choose mean or min.")
    tasks, weights = weighted_tasks(task)

    from simmerge_core.analysis import selector_folder
    from simmerge_core.planning import explain_plan, search, settle, target_of
    from simmerge_core.selector import Selector, adapted
    from simmerge_core.tables import PAIRWISE_FEATURES, DataRoot

    target = target_of(tasks, combine=how, weights=weights)
    features = _features(data, tasks=tasks, checkpoints=checkpoints)
    folder = selector or selector_folder(DataRoot(data), actions)
    if not Selector.is_in(folder):
        raise SelectionError(f"There is no selector in {folder}: run `simmerge demo`, or materialize selector first.")
    model = Selector.load(folder)
    if adapt:
        model = adapted(model, DataRoot(data).scan(PAIRWISE_FEATURES).collect())
    with progress(quiet=json) as report:
        ranked = search(
            model,
            features,
            checkpoints,
            target,
            k=k or len(checkpoints),
            top=top,
            one_per_domain=not any_domains,
            progress=report,
        )
    settlement = settle(ranked, model, target)
    unseen = sorted({id for order in ranked["order"].to_list() for id in order} - set(model.checkpoints))
    best = ranked.row(0, named=True)
    steps = explain_plan(model, features, best["order"], best["actions"], target) if explain else []
    if json:
        told: dict[str, Any] = {
            "selector": str(folder),
            "selector_key": model.key,
            "target": asdict(target),
            "plans": ranked.to_dicts(),
            "level": settlement.level,
            "cannot_be_told_apart": settlement.cannot_be_told_apart,
            "evaluations_to_settle": {
                "plans": settlement.plans,
                "items_each": settlement.items_each,
                "difference": settlement.difference,
            },
            "checkpoints_without_labels": unseen,
            "labels": {"items": settlement.usual_items, "resolve": settlement.resolved},
        }
        print_json({**told, "explanation": [step.as_dict() for step in steps]} if explain else told)
        return
    _print_plans(ranked, f"{100 * settlement.level:.0f} % interval")
    for number, step in enumerate(steps, start=1):
        title, columns, rows = explanation_table(step, step=number)
        print_table(columns, rows, title=title)
    note(f"{best['search']} search; predicted on {target_text(target)}.")
    for line in settlement_notes(settlement, plans=ranked.height, cut=ranked.height == top, k=best["k"]):
        note(line)
    if unseen:
        note(unseen_note(unseen, calibrated=model.unseen_calibration != model.calibration))
    operators = " ".join(f"--operator {action}" for action in best["actions"])
    note(f"Execute the best: simmerge merge {' '.join(best['order'])} {operators} --out merged")


def _print_plans(ranked: pl.DataFrame, interval: str) -> None:
    rows = [
        (
            row["rank"],
            row["order"],
            row["actions"],
            row["predicted_utility"],
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{row['difference_low']:.3f} to {row['difference_high']:.3f}" if row["rank"] > 1 else "",
        )
        for row in ranked.iter_rows(named=True)
    ]
    print_table(("rank", "order", "operators", "predicted utility", interval, "behind the first by"), rows)


def _features(data: Location, *, tasks: Sequence[str], checkpoints: Sequence[str]) -> pl.DataFrame:
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
