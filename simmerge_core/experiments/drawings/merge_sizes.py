"""Figures that need `pairs` and `plans` both: results by the number of merged checkpoints (Fig. 4, 10, 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simmerge_core.analysis.figures.style import MUTED, Form, colour, draw, label, quiet
from simmerge_core.experiments.drawings.estimates import Estimate, mean
from simmerge_core.experiments.drawings.heading import head
from simmerge_core.experiments.drawings.lines import Line, paint_lines
from simmerge_core.experiments.drawings.names import method
from simmerge_core.experiments.drawings.notes import along, configurations, note
from simmerge_core.experiments.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OPERATORS = ("linear", "slerp", "ties")
_MULTIWAY = {**{o: f"random_order_{o}" for o in _OPERATORS}, "best_fixed": "expert_last_best_fixed"}
"""What stands for a pairwise method in longer merges: a fixed operator says nothing of the order."""

_DELTAS = {"delta_expert": "Δexpert (%)", "delta_aux": "Δaux (%)"}
_FIXED = "fixed operators: mean over orders"

Tables = Mapping[int, Mapping[str, Any]]
"""Per k the table of each task."""


def merge_size(pairs_result: Result, plans_result: Result, form: Form) -> Mapping[str, bytes]:
    """Macro-averaged Δexpert and Δaux against k."""
    tables = _tables(pairs_result, plans_result)
    titles = ("Change against the expert (%)", "Change against the auxiliaries (%)")
    names = (*_OPERATORS, "best_fixed", "simmerge", "oracle")
    shared = {column: shared_tasks(tables, names, column) for column in _DELTAS}
    words = [f"{_FIXED}, best fixed: expert last", *_missing(tables, shared)]

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, 2)
        for axes, column, title in zip(panels, _DELTAS, titles, strict=True):

            def macro(k: int, name: str, column: str = column) -> float | None:
                return mean(_cell(tables, k, task, name, column) for task in shared[column])

            _paint_by_size(axes, list(tables), names, macro)
            axes.set_title(title, fontsize=10, pad=6)
        about = _about(pairs_result, plans_result, *words, width=9.0)
        head(figure, "Two-, three- and four-way merges", about, legend=panels[0].get_legend_handles_labels())

    return {"fig_04_merge_size": draw(paint, width=9.0, height=4.3, form=form)}


def trends(pairs_result: Result, plans_result: Result, form: Form) -> Mapping[str, bytes]:
    """The same per task: a column per task, Δexpert above and Δaux below."""
    tables = _tables(pairs_result, plans_result)
    tasks = sorted({task for table in tables.values() for task in table})

    def paint(figure: Figure) -> None:
        panels = figure.subplots(2, len(tasks), squeeze=False, sharex=True)
        for line, (column, words) in zip(panels, _DELTAS.items(), strict=True):
            for axes, task in zip(line, tasks, strict=True):

                def cell(k: int, name: str, task: str = task, column: str = column) -> float | None:
                    return _cell(tables, k, task, name, column)

                _paint_by_size(axes, list(tables), (*_OPERATORS, "simmerge"), cell)
            line[0].set_ylabel(words)
        for axes, task in zip(panels[0], tasks, strict=True):
            axes.set_title(label(task), fontsize=10, pad=6)
        about = _about(pairs_result, plans_result, _FIXED, width=10.0)
        legend = panels[0][0].get_legend_handles_labels()
        head(figure, "Change against expert and auxiliaries, per task", about, legend=legend)

    return {"fig_10_11_trends": draw(paint, width=10.0, height=4.8, form=form)}


def _paint_by_size(
    axes: Axes, sizes: Sequence[int], names: Sequence[str], value: Callable[[int, str], float | None]
) -> None:
    lines = [
        Line(
            method(name),
            [(float(k), Estimate(value(k, name))) for k in sizes],
            colour(name),
            strong=name == "simmerge",
            dashed=name == "oracle",
        )
        for name in names
    ]
    axes.axhline(0, color=MUTED, linewidth=0.9)
    paint_lines(axes, lines)
    axes.set_xticks(sizes, [f"{k}-way" for k in sizes])
    axes.margins(x=0.14, y=0.12)
    axes.tick_params(labelsize=8.5)
    axes.locator_params(axis="y", nbins=6)
    quiet(axes)


def shared_tasks(tables: Tables, names: Sequence[str], column: str) -> list[str]:
    """Tasks on which every method's change is defined at every k: means over different tasks are no trend."""
    tasks = sorted({task for table in tables.values() for task in table})
    return [t for t in tasks if all(_cell(tables, k, t, name, column) is not None for k in tables for name in names)]


def _missing(tables: Tables, shared: Mapping[str, Sequence[str]]) -> list[str]:
    """What is said of tasks that a mean leaves out, such as those whose auxiliaries score nothing."""
    tasks = sorted({task for table in tables.values() for task in table})
    left = {column: [label(t) for t in tasks if t not in here] for column, here in shared.items()}
    return [f"{_DELTAS[c].removesuffix(' (%)')} without {', '.join(out)}" for c, out in left.items() if out]


def _tables(pairs_result: Result, plans_result: Result) -> Tables:
    plans = plans_result.figures["paper"]
    longer = {int(k): plans[k]["per_task"] for k in sorted(plans)}
    return {2: pairs_result.figures["paper"]["per_task"], **longer}


def _cell(tables: Tables, k: int, task: str, name: str, column: str) -> float | None:
    key = name if k == 2 else _MULTIWAY.get(name, name)
    value = tables[k].get(task, {"methods": {}})["methods"].get(key, {}).get(column)
    return None if value is None else float(value)


def _about(pairs_result: Result, plans_result: Result, *words: str, width: float) -> str:
    return note(
        f"{pairs_result.figures['paper']['pairs']} held-out pairs",
        configurations(plans_result.figures["paper"]),
        along(pairs_result.rows),
        *words,
        width=width,
    )
