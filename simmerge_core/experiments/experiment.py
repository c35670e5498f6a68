"""What an experiment is, and how experiments are run: in order, each once, results kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from simmerge_core.experiments.data import ExperimentData, Progress, silent
from simmerge_core.experiments.result import Result, ResultStore
from simmerge_core.files import hash_json
from simmerge_core.operators.actions import ACTION_SETS

if TYPE_CHECKING:
    from simmerge_core.analysis.figures.style import Form


@dataclass(frozen=True, slots=True)
class Catalogs:
    """The full catalog, and the one of larger models where it was built."""

    full: ExperimentData
    larger: ExperimentData | None = None


class Run(Protocol):
    """Compute an experiment from the catalogs."""

    def __call__(self, catalogs: Catalogs, progress: Progress) -> Result:
        """Return its rows and figures."""
        ...


class Snippets(Protocol):
    """Generated Markdown by name; docs/results.md shows them where its template says {{experiment:name}}."""

    def __call__(self, result: Result) -> Mapping[str, str]:
        """Return tables and numbers as Markdown."""
        ...


class Draw(Protocol):
    """Figures by file name without suffix."""

    def __call__(self, result: Result, form: Form) -> Mapping[str, bytes]:
        """Return the bytes of PNG or SVG files."""
        ...


def _no_figures(result: Result, form: Form) -> Mapping[str, bytes]:
    return {}


@dataclass(frozen=True, slots=True)
class Experiment:
    """One question with its answer.

    Attributes
    ----------
    name
        Slug: its folder, and its name on the command line.
    question
        One line, for progress.
    version
        Raised when the same tables would give other rows or figures.
    needs_larger
        Whether it is about the catalog of larger models.
    needs_actions
        Action set that the catalog must declare.
    section
        Section of the protocol that it alone reads.
    lacking
        What else it would need and is not there, in words.
    """

    name: str
    question: str
    run: Run
    snippets: Snippets
    draw: Draw = field(default=_no_figures)
    version: int = 1
    needs_larger: bool = False
    needs_actions: str | None = None
    section: str | None = None
    lacking: Callable[[Catalogs], str | None] = field(default=lambda catalogs: None)

    def lacks(self, catalogs: Catalogs) -> str | None:
        """What it would need and is not there, in words; None where it can be run."""
        if self.needs_larger and catalogs.larger is None:
            return "a catalog of larger models"
        declared = (*ACTION_SETS, *catalogs.full.catalog.action_sets)
        if self.needs_actions is not None and self.needs_actions not in declared:
            return f"an action set named {self.needs_actions} in the catalog, with labels"
        return self.lacking(catalogs)


class DrawTogether(Protocol):
    """Figures of two experiments by file name without suffix."""

    def __call__(self, first: Result, second: Result, form: Form, /) -> Mapping[str, bytes]:
        """Return the bytes of PNG or SVG files."""
        ...


@dataclass(frozen=True, slots=True)
class JointDrawing:
    """Figures that need the results of two experiments, by name."""

    experiments: tuple[str, str]
    draw: DrawTogether


def run_all(
    experiments: Sequence[Experiment], catalogs: Catalogs, store: ResultStore, *, progress: Progress = silent
) -> dict[str, Result]:
    """Every experiment's result, from the store where it rests on the same tables, protocol and version.

    Those that lack something are left out.
    """
    wanted = [e for e in experiments if e.lacks(catalogs) is None]
    results: dict[str, Result] = {}
    for number, experiment in enumerate(wanted):

        def tell(message: str, fraction: float, number: int = number, name: str = experiment.name) -> None:
            progress(f"{name}: {message}" if message else name, (number + fraction) / len(wanted))

        tell(experiment.question, 0.0)
        stamp = _stamp(experiment, catalogs)
        found = store.read(experiment.name, stamp)
        if found is None:
            found = experiment.run(catalogs, tell)
            store.write(experiment.name, stamp, found)
        results[experiment.name] = found
    progress("done", 1.0)
    return results


def _stamp(experiment: Experiment, catalogs: Catalogs) -> str:
    larger = catalogs.larger.stamp if experiment.needs_larger and catalogs.larger is not None else ""
    what = {"name": experiment.name, "version": experiment.version, "full": catalogs.full.stamp, "larger": larger}
    if experiment.section is not None:
        what["section"] = catalogs.full.protocol.model_dump(mode="json")[experiment.section]
    return hash_json(what)
