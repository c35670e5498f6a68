"""``simmerge experiments``: every table and figure of the paper, and what goes past them, on a labelled catalog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simmerge_cli.options import DataPlace, Json, data_root
from simmerge_cli.output import note, print_json, print_table, progress
from simmerge_core.errors import SelectionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simmerge_core.experiments.bars import Bar

EPILOG = (
    "\b\nExample:\n"
    "  simmerge demo --preset full --out studies/full/demo --data studies/full/data\n"
    "  simmerge experiments\n"
    "  simmerge experiments pairs held_out --json\n"
    "  simmerge experiments --catalog my/catalog.yaml --data my/data --own-catalog --out my/results"
)

STUDIES = Path("studies")


def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME …]", help="Run these only; the results page is written when all are run."),
    ] = None,
    catalog: Annotated[
        Path, typer.Option("--catalog", metavar="FILE", help="The catalog, built by `simmerge demo --preset full`.")
    ] = STUDIES / "full/demo/catalog.yaml",
    data: Annotated[DataPlace, typer.Option("--data", metavar="DIR", parser=data_root, help="Its data root.")] = STUDIES
    / "full/data",
    larger_catalog: Annotated[
        Path | None,
        typer.Option("--larger-catalog", metavar="FILE", help="A catalog of larger models, for the transfer."),
    ] = None,
    larger_data: Annotated[
        DataPlace | None, typer.Option("--larger-data", metavar="DIR", parser=data_root, help="Its data root.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where results.md and results/ go; <data>/experiments if not given."),
    ] = None,
    own_catalog: Annotated[
        bool,
        typer.Option("--own-catalog", help="Accept other splits and sizes than the protocol's: a catalog of your own."),
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that train, merge and evaluate.")] = 2,
    json: Json = False,
) -> None:
    """Reproduce the paper's tables and figures, with noise, baselines and ablations.

    Read from the tables under the data root; what a comparison still needs is merged and evaluated now, once. Results
    are kept by experiment: interrupted and started again, it goes on where it was.
    """
    from simmerge_core.catalog import load_catalog
    from simmerge_core.experiments.registry import JOINT_DRAWINGS, named

    chosen = named(names or [])
    if names and out is not None:
        raise SelectionError("--out is for the results page, which all experiments fill: leave it out, or the names.")
    if out is not None and out.exists() and not out.is_dir():
        raise SelectionError(f"--out {out} is a file: name a folder for results.md and results/.")
    if (larger_catalog is None) != (larger_data is None):
        raise SelectionError("A larger catalog needs both --larger-catalog and --larger-data: give the other one too.")
    usual = (STUDIES / "larger/demo/catalog.yaml", STUDIES / "larger/data")
    if larger_catalog is None and data == STUDIES / "full/data" and usual[0].is_file():
        larger_catalog, larger_data = usual
    if not catalog.is_file() and catalog == STUDIES / "full/demo/catalog.yaml":
        raise SelectionError(
            f"The catalog of the experiments is not built, there is no {catalog}: run `make experiments`, or name "
            "another one with --catalog and --data."
        )
    declared = load_catalog(catalog)
    larger = load_catalog(larger_catalog) if larger_catalog is not None else None

    from simmerge_core.experiments.bars import bars
    from simmerge_core.experiments.data import load_data
    from simmerge_core.experiments.experiment import Catalogs, run_all
    from simmerge_core.experiments.flat import flat_rows
    from simmerge_core.experiments.publishing import publish
    from simmerge_core.experiments.result import ResultStore

    with progress(quiet=json) as tell:
        tell("reading tables", 0.0)
        full = load_data(data, declared, workers=workers, checked=not own_catalog)
        beside = None
        if larger is not None and larger_data is not None:
            beside = load_data(larger_data, larger, workers=workers, checked=False)
        catalogs = Catalogs(full, beside)
        lacking = {e.name: lack for e in chosen if (lack := e.lacks(catalogs)) is not None}
        if names and lacking:
            name, lack = next(iter(lacking.items()))
            raise SelectionError(f"The experiment {name!r} needs {lack}: give it, or leave the experiment out.")
        results = run_all(chosen, catalogs, ResultStore(data / "experiments" / "results"), progress=tell)
    reached = [bar for bar in bars(results, full.protocol) if bar.figure is not None]
    place = None
    if not names:
        to = out or data / "experiments"
        reached_all = bars(results, full.protocol)
        place = publish(chosen, results, reached_all, to, joint=JOINT_DRAWINGS, strict=not own_catalog)
    if json:
        figures = {name: result.figures for name, result in results.items()}
        flat = flat_rows(results, full)
        print_json({"experiments": figures, "comparisons": flat, "bars": [_as_dict(bar) for bar in reached]})
        return
    _print(reached)
    for name, lack in lacking.items():
        note(f"The experiment {name} was left out, it needs {lack}.")
    if place is not None:
        note(f"{place} holds everything; figures and raw rows are in {place.parent / place.stem}.")


def _as_dict(bar: Bar) -> dict[str, object]:
    return {"name": bar.name, "least": bar.least, "unit": bar.unit, "reached": bar.figure, "met": bar.met}


def _print(reached: Sequence[Bar]) -> None:
    rows = []
    for bar in reached:
        assert bar.figure is not None
        low, high = bar.figure["ci95"]
        between = "" if low is None else f"{low:.4g} … {high:.4g}"
        rows.append((bar.name, bar.unit, bar.least, bar.figure["value"], between, "yes" if bar.met else "no"))
    if rows:
        print_table(("bar", "unit", "set", "reached", "95 %", "met"), rows)
