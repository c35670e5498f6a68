"""Write the results page with its figures and raw rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simmerge_core.analysis.figures.style import Form
from simmerge_core.experiments.bars import Bar
from simmerge_core.experiments.experiment import Experiment, JointDrawing
from simmerge_core.experiments.page import page
from simmerge_core.experiments.result import Result
from simmerge_core.files import write_atomically, write_json
from simmerge_core.storage import Location

FORMS: tuple[Form, ...] = ("svg", "png")


def publish(
    experiments: Sequence[Experiment],
    results: Mapping[str, Result],
    bars: Sequence[Bar],
    out: Location,
    *,
    joint: Sequence[JointDrawing] = (),
    strict: bool = True,
) -> Location:
    """Write results.md, and beside it results/ with figures (SVG, PNG), figures.json and rows/<experiment>.parquet.

    Returns
    -------
    Location
        The page.
    """
    beside = out / "results"
    there = [e for e in experiments if e.name in results]
    for experiment in there:
        with write_atomically(beside / "rows" / f"{experiment.name}.parquet") as temporary:
            results[experiment.name].rows.write_parquet(temporary, compression="zstd")
    paths: dict[str, str] = {}
    for form in FORMS:
        pictures = [e.draw(results[e.name], form) for e in there]
        for together in joint:
            first, second = together.experiments
            if first in results and second in results:
                pictures.append(together.draw(results[first], results[second], form))
        for name, picture in (item for drawn in pictures for item in drawn.items()):
            with write_atomically(beside / f"{name}.{form}") as temporary:
                temporary.write_bytes(picture)
            paths.setdefault(name, f"results/{name}.{form}")
    write_json(beside / "figures.json", {name: result.figures for name, result in sorted(results.items())})
    text = page(experiments, results, bars, paths, strict=strict)
    with write_atomically(out / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out / "results.md"
