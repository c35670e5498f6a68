"""``simmerge demo``: train the demo catalog and run everything on it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simmerge_cli.options import DEFAULT_DAGSTER_HOME, DEFAULT_DATA, DagsterHome, DataFolder, Device, Json
from simmerge_cli.output import Progress, note, print_json, print_table, progress
from simmerge_core.errors import SimMergeError

if TYPE_CHECKING:
    from simmerge_cli.run_record import RunRecord
    from simmerge_core.storage import Location
    from simmerge_pipeline.materialize import Summary

EPILOG = (
    "\b\nExample:\n"
    "  simmerge demo\n"
    "  simmerge demo --full --workers 8\n"
    "  simmerge demo --preset tiny --out tiny/demo --data tiny/data --dagster-home tiny/dagster"
)

_TRAINING = "training"
_TRAINING_SHARE = 0.45
_TRAINING_STAGES = {"tasks": (0.0, 0.02), "base": (0.02, 0.5), "experts": (0.5, 1.0)}
_INCOMPLETE = 1
"""Exit code when some partitions could not be computed, though everything else was."""


def run(
    full: Annotated[bool, typer.Option("--full", help="30 experts, more items and actions; longer.")] = False,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="tiny, demo, full or larger; demo if not given.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the catalog is trained.")] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of items, weights and training.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that train and evaluate.")] = 2,
    device: Device = "cpu",
    data: DataFolder = DEFAULT_DATA,
    dagster_home: DagsterHome = DEFAULT_DAGSTER_HOME,
    json: Json = False,
) -> None:
    """Train the demo catalog and run everything on it.

    A base and its experts are trained from scratch, every asset of the pipeline is materialized on them, and the plans
    that were selected without merging are executed and compared with every baseline. Interrupted and started again, it
    goes on where it was.
    """
    if full and preset not in (None, "full"):
        raise SimMergeError(f"--full and --preset {preset} contradict each other: give one of them.")
    from simmerge_cli.run_record import RunRecord
    from simmerge_core.devices import check_device
    from simmerge_core.storage import check_data_root

    check_device(device)
    check_data_root(data, writing=True)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one progress display is enough
    record = RunRecord()
    finished = False
    note("Training the demo catalog and running every asset on it; Ctrl-C keeps what is finished.")
    try:
        with record.watching(), progress(quiet=False) as report:
            catalog = _train(out, preset or ("full" if full else "demo"), seed, workers, record, report)
            summary = _materialize(catalog, data, dagster_home, workers, device, record, report)
        finished = summary.ok
    finally:
        if record.stages:  # a call that was refused leaves no trace
            record.write(data / "demo_run.json", finished=finished)
    _close(record, summary, catalog=catalog, data=data, dagster_home=dagster_home, json=json)
    if not summary.ok:
        raise typer.Exit(_INCOMPLETE)


def _train(out: Path, preset: str, seed: int, workers: int, record: RunRecord, report: Progress) -> Path:
    from simmerge_core.demo import PRESETS, build

    if preset not in PRESETS:
        raise SimMergeError(f"There is no preset {preset!r}: choose one of {', '.join(PRESETS)}.")
    record.enter(_TRAINING)
    start = time.perf_counter()
    catalog = build(
        out,
        preset=preset,
        seed=seed,
        workers=workers,
        progress=lambda stage, fraction: report(f"training: {stage}", _TRAINING_SHARE * _trained(stage, fraction)),
    )
    record.add(_TRAINING, time.perf_counter() - start, {"preset": preset, "workers": workers})
    return catalog


def _trained(stage: str, fraction: float) -> float:
    """Share of the whole training that is done, from what is done of one stage of it."""
    start, end = _TRAINING_STAGES.get(stage, (0.0, 1.0))
    return start + (end - start) * fraction


def _materialize(
    catalog: Path, data: Location, dagster_home: Path, workers: int, device: str, record: RunRecord, report: Progress
) -> Summary:
    from simmerge_cli.dagster_home import prepared
    from simmerge_pipeline.materialize import materialize_all

    def tell(message: str, fraction: float) -> None:
        record.enter(message.partition(":")[0])
        report(message, _TRAINING_SHARE + (1.0 - _TRAINING_SHARE) * fraction)

    record.enter("start of Dagster")
    summary = materialize_all(
        catalog=catalog.absolute(),
        data_root=data.absolute(),
        dagster_home=prepared(dagster_home),
        workers=workers,
        device=device,
        progress=tell,
    )
    for asset in summary.assets:
        counts = {"computed": asset.computed, "up_to_date": asset.current, "failed": len(asset.failed)}
        record.add(asset.name, asset.seconds, counts)
    return summary


def _close(
    record: RunRecord, summary: Summary, *, catalog: Path, data: Location, dagster_home: Path, json: bool
) -> None:
    """What came out, where it lies, and what to do next."""
    result = _report(data)
    places = {
        "catalog": str(catalog),
        "results": str(data),
        "report": str(data / "report" / "report.md"),
        "figures": sorted(str(file) for file in (data / "report").glob("*.png")),
        "merged": sorted(str(folder) for folder in (data / "merged_checkpoints").glob("merge_request=*")),
        "timing": str(data / "demo_run.json"),
        "ui": _ui_command(catalog, data, dagster_home),
    }
    run = record.as_dict(finished=summary.ok)
    if json:
        print_json({"report": result, "run": run, "places": places, "failed": summary.failed})
        return
    if result is not None:
        from simmerge_cli.closing import print_summary

        print_summary(result)
    rows = [(s["name"], s["seconds"], _mebibytes(s["peak_tree_bytes"]), _counts(s["detail"])) for s in run["stages"]]
    print_table(("stage", "seconds", "peak MiB", "done"), rows, title=f"Took {run['seconds']:.0f} s in all")
    print_table(("what", "where"), [*_rows_of(places)])
    for place, text in summary.failed.items():
        note(f"Error: {place}: {' '.join(text.split())}")
    typer.echo(f"Open the Dagster UI on exactly this data: {places['ui']}")


def _rows_of(places: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, place in places.items():
        if isinstance(place, list):
            yield from ((name if number == 0 else "", one) for number, one in enumerate(place))
        elif name != "ui":
            yield name, place


def _report(data: Location) -> dict[str, Any] | None:
    import json

    file = data / "report" / "report.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def _ui_command(catalog: Path, data: Location, dagster_home: Path) -> str:
    usual = (Path("demo/catalog.yaml").absolute(), DEFAULT_DATA.absolute(), DEFAULT_DAGSTER_HOME.absolute())
    if tuple(path.absolute() for path in (catalog, data, dagster_home)) == usual:
        return "make ui"
    return f"simmerge ui --catalog {catalog} --data {data} --dagster-home {dagster_home}"


def _mebibytes(size: int | None) -> int | None:
    return None if size is None else round(size / 2**20)


def _counts(detail: dict[str, Any]) -> str:
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in detail.items() if value not in (0, None))
