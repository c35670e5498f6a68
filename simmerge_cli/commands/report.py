"""``simmerge report``: the tables and figures of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simmerge_cli.options import DEFAULT_CATALOG, DEFAULT_DATA, CatalogFile, DataFolder, Json
from simmerge_cli.output import note, print_json, print_rich, progress

EPILOG = (
    "\b\nExample:\n  simmerge report\n  simmerge report --json > report.json\n"
    "  simmerge report --held-out-folds 5 --out report"
)


def run(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where figures and texts go; <data>/report if not given."),
    ] = None,
    held_out_folds: Annotated[
        int,
        typer.Option(
            "--held-out-folds",
            metavar="N",
            min=0,
            help="Also train anew in N folds of checkpoints and judge experts never seen; 0, the default, does not.",
        ),
    ] = 0,
    catalog: CatalogFile = DEFAULT_CATALOG,
    data: DataFolder = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Compare what was predicted with every baseline.

    Computed anew from the tables and selectors under the data root; nothing is merged or evaluated. By default the test
    pairs are new but their checkpoints are not; held-out folds ask the harder question.
    """
    from simmerge_core.catalog import load_catalog

    declared = load_catalog(catalog)

    from simmerge_core.analysis import figures, render
    from simmerge_core.analysis import report as compare
    from simmerge_core.files import write_atomically, write_json
    from simmerge_core.tables import PAIRWISE_FEATURES, DataRoot

    root = DataRoot(data)
    with progress(quiet=json) as tell:
        result = compare(root, declared, held_out_folds=held_out_folds, progress=tell)
    text = render(result)
    folder = out or root.root / "report"
    pictures = figures.report_figures(result, root.scan(PAIRWISE_FEATURES).collect())
    written = figures.write_figures(pictures, folder)
    write_json(folder / "report.json", result)
    with write_atomically(folder / "report.md") as temporary:
        temporary.write_text(text.markdown, encoding="utf-8")
    if json:
        print_json(result)
    else:
        print_rich(text.terminal)
        note(f"report.json, report.md and {len(written)} figures are in {folder}.")
