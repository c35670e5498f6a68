"""The report's figures, ready to be written beside it or shown as metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from simmerge_core.analysis.figures.bars import gap_closed_bars
from simmerge_core.analysis.figures.confusion import confusion_matrix
from simmerge_core.analysis.figures.deltas import delta_markers, merge_size_lines
from simmerge_core.analysis.figures.similarity import similarity_heat_map
from simmerge_core.files import write_atomically
from simmerge_core.storage import Location

_DELTAS = ("mean", "diff_expert", "diff_aux", "delta_expert", "delta_aux", "gap_closed")


def per_task_frame(summary: Mapping[str, Any]) -> pl.DataFrame:
    """Per-task table of a section of the report (pairwise, or one k of plans): task, method, the columns of Table 1."""
    rows = [
        {"task": task, "method": method, **{name: cells[name] for name in _DELTAS}}
        for task, table in summary["per_task"].items()
        for method, cells in table["methods"].items()
    ]
    return pl.DataFrame(rows, schema={"task": pl.String, "method": pl.String, **dict.fromkeys(_DELTAS, pl.Float64)})


def report_figures(report: Mapping[str, Any], features: pl.DataFrame | None = None) -> dict[str, bytes]:
    """Every figure that the report has data for, by file stem, as PNG bytes.

    Parameters
    ----------
    report
        As `analysis.report` returns it.
    features
        Table `pairwise_features`, for the heat map.
    """
    pairwise = report["pairwise"]
    note = _note(pairwise)
    table = per_task_frame(pairwise)
    actions = list(pairwise["confusion"]["actions"])
    figures = {
        "gap_closed": gap_closed_bars(table, methods=[*actions, "simmerge"], note=note),
        "confusion": confusion_matrix(pairwise["confusion"]["matrix"], actions, note=note),
        "deltas": delta_markers(table, methods=["simmerge", *actions, "random"], note=note),
    }
    extended = report.get("extended", {}).get("pairwise")
    if extended is not None:
        note = _note(extended)
        table = per_task_frame(extended)
        best = ["random", "keep_better_parent", "best_fixed", "best_fixed_per_task", "simmerge"]
        figures["gap_closed_extended"] = gap_closed_bars(
            table, methods=best, title="Extended actions, mean over both parents' tasks", note=note
        )
        figures["confusion_extended"] = confusion_matrix(
            extended["confusion"]["matrix"],
            extended["confusion"]["actions"],
            title="Chosen against best action",
            note=note,
        )
    plans = {int(k): figures_of_k for k, figures_of_k in report.get("plans", {}).items() if "per_task" in figures_of_k}
    if plans:
        figures["merge_size"] = merge_size_lines(_sizes(pairwise, plans), note="plans chosen without executing any")
        k = min(plans)
        figures[f"plans_{k}"] = gap_closed_bars(
            per_task_frame(plans[k]),
            methods=["random_plan", "random_order", "expert_last_best_fixed", "simmerge"],
            title=f"{k}-way plans: order and operators",
            note=f"{plans[k]['configurations']} configurations, {_along(plans[k])}",
        )
    if features is not None and features.height:
        figures["similarity"] = similarity_heat_map(features, note="before any merge; KL on unlabeled probes")
    return figures


def write_figures(figures: Mapping[str, bytes], folder: Location) -> list[Location]:
    """Write each figure as ``<folder>/<name>.png``, atomically; returns the paths."""
    paths: list[Location] = []
    for name, content in figures.items():
        path = folder / f"{name}.png"
        with write_atomically(path) as temporary:
            temporary.write_bytes(content)
        paths.append(path)
    return paths


def _along(summary: Mapping[str, Any]) -> str:
    first = summary["directions"][0]
    reverse = ", and the reverse" if len(summary["directions"]) > 1 else ""
    return f"chosen on items {first['chosen_on']}, scored on {first['scored_on']}{reverse}"


def _note(summary: Mapping[str, Any]) -> str:
    return f"{summary['test_pairs']} held-out pairs, {_along(summary)}"


def _sizes(
    pairwise: Mapping[str, Any], plans: Mapping[int, Mapping[str, Any]]
) -> dict[str, dict[int, tuple[float, float]]]:
    """Macro-averaged (Δexpert, Δaux) by method and k; single-operator baselines are those of a random order."""
    named = {name: {2: name, "k": f"random_order_{name}"} for name in pairwise["confusion"]["actions"]}
    named |= {"simmerge": {2: "simmerge", "k": "simmerge"}, "oracle": {2: "oracle", "k": "oracle"}}
    series: dict[str, dict[int, tuple[float, float]]] = {}
    for method, keys in named.items():
        for k, summary in {2: pairwise, **plans}.items():
            key = keys[2] if k == 2 else keys["k"]
            cells = [t["methods"].get(key) for t in summary["per_task"].values()]
            pairs = [(c["delta_expert"], c["delta_aux"]) for c in cells if c is not None]
            if pairs and all(e is not None and a is not None for e, a in pairs):
                series.setdefault(method, {})[k] = (
                    sum(e for e, _ in pairs) / len(pairs),
                    sum(a for _, a in pairs) / len(pairs),
                )
    return series
