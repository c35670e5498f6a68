"""``simmerge evaluate``: score one checkpoint folder on a task."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from simmerge_cli.options import DEFAULT_CATALOG, AllowHub, CatalogFile, Device, Json
from simmerge_cli.output import note, print_json, print_table, progress
from simmerge_core.errors import EvaluationError

EPILOG = (
    "\b\nExample:\n  simmerge evaluate ./merged --task math\n  simmerge evaluate math-01 --task math --task code --json"
)


def run(
    checkpoint: Annotated[str, typer.Argument(metavar="DIR", help="A checkpoint folder, or a catalog id.")],
    task: Annotated[
        list[str], typer.Option("--task", metavar="T", help="Task of the catalog; repeatable.", show_default=False)
    ],
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Requests per batch; the benchmark's if not given.")
    ] = None,
    device: Device = "cpu",
    allow_hub: AllowHub = False,
    catalog: CatalogFile = DEFAULT_CATALOG,
    json: Json = False,
) -> None:
    """Score one model on tasks of the catalog.

    lm-eval runs in process; a row is one benchmark, metric, item set and seed.
    """
    from simmerge_core.catalog import load_catalog

    declared = load_catalog(catalog)
    tasks = [declared.task(name) for name in dict.fromkeys(task)]
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        if "/" in checkpoint or checkpoint not in (declared.base.id, *declared.checkpoint_ids):
            raise EvaluationError(
                f"There is no folder {checkpoint!r}, and {declared.path} declares no such checkpoint: name one of both."
            )
        from simmerge_core.checkpoints import resolve

        folder = resolve(declared.checkpoint(checkpoint), allow_hub=allow_hub)

    if not allow_hub:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one progress display is enough
    from simmerge_core.checkpoints import check_finite, open_checkpoint
    from simmerge_core.devices import check_device

    check_device(device)
    check_finite(open_checkpoint(folder))

    import polars as pl

    from simmerge_core.evaluation import check_task, evaluate

    for declared_task in tasks:
        check_task(declared_task, allow_network=allow_hub)
    frames = []
    with progress(quiet=json) as report:
        for number, declared_task in enumerate(tasks):
            report(f"evaluating on {declared_task.id}", number / len(tasks))
            frame = evaluate(folder, declared_task, device=device, batch_size=batch_size, allow_network=allow_hub)
            frames.append(frame.select(pl.lit(declared_task.id).alias("task"), pl.all()))
        report("evaluated", 1.0)
    scores = pl.concat(frames)
    if json:
        print_json({"checkpoint": str(folder), "scores": scores.to_dicts()})
    else:
        print_table(scores.columns, scores.rows())
        note("utility is the mean over the items of each set; the first metric of a benchmark decides.")
