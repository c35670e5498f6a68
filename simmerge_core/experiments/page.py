"""The results page: prose from a template, every number and figure from the experiments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from simmerge_core.errors import SelectionError
from simmerge_core.experiments.bars import Bar
from simmerge_core.experiments.experiment import Experiment
from simmerge_core.experiments.pages.comparisons import METHODS
from simmerge_core.experiments.pages.markdown import number, table, with_interval
from simmerge_core.experiments.result import Result

TEMPLATE = Path(__file__).with_name("results.md.in")
_PLACE = re.compile(r"\{\{(?P<experiment>[a-z_]+):(?P<name>[a-z0-9_]+)\}\}")


def page(
    experiments: Sequence[Experiment],
    results: Mapping[str, Result],
    bars: Sequence[Bar],
    figures: Mapping[str, str],
    *,
    strict: bool = True,
) -> str:
    """The page as Markdown.

    Parameters
    ----------
    results
        By experiment; what was not run says so in its place.
    figures
        Relative path by figure name.
    strict
        Refuse a place that no experiment fills; else it says so, as for a catalog without four-way configurations.

    Raises
    ------
    SelectionError
        If the template names a table or figure that no experiment gives.
    """
    snippets: dict[tuple[str, str], str] = {("bars", "table"): bars_table(bars)}
    for experiment in experiments:
        if experiment.name in results:
            found = experiment.snippets(results[experiment.name])
            snippets |= {(experiment.name, name): text for name, text in found.items()}
    missing = {e.name: e.needs_larger for e in experiments if e.name not in results}

    def fill(match: re.Match[str]) -> str:
        experiment, name = match["experiment"], match["name"]
        if experiment == "figure":
            return f"![{name.replace('_', ' ')}]({figures[name]})" if name in figures else "*(not drawn)*"
        if experiment in missing:
            return "*(not run: there was no catalog of larger models)*" if missing[experiment] else "*(not run)*"
        if (experiment, name) not in snippets and not strict:
            return "*(nothing in this catalog to compute it from)*"
        if (experiment, name) not in snippets:
            raise SelectionError(
                f"The results page asks for {experiment}:{name}, which no experiment gives: correct it."
            )
        return snippets[experiment, name]

    return _PLACE.sub(fill, TEMPLATE.read_text("utf-8"))


_UNITS = {"share": ("of the oracle's gain", 2), "points": ("points", 1), "utility": ("utility", 4)}
_VERDICTS = {True: "met", False: "**not met**", None: "not run"}


def bars_table(bars: Sequence[Bar]) -> str:
    """What was to be reached and what was."""
    rows = []
    for bar in bars:
        unit, digits = _UNITS[bar.unit]
        least = f"≥ {number(bar.least, 0 if bar.unit == 'points' else 2)}" if bar.least else "above 0"
        least += ", interval above 0" if bar.above_zero and bar.least else ""
        least = "interval above 0" if bar.above_zero and not bar.least else least
        against = bar.figure.get("method") if bar.figure is not None else None
        name = f"{bar.name} ({METHODS.get(against, against)})" if against else bar.name
        rows.append([name, f"{least} ({unit})", with_interval(bar.figure, digits, signed=True), _VERDICTS[bar.met]])
    return table(["bar", "set beforehand", "reached", ""], rows)
