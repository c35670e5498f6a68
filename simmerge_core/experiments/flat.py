"""All comparisons of the experiments as flat rows, as `analysis.comparisons` gives them for a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simmerge_core.analysis.comparisons import pair_rows, plan_rows
from simmerge_core.experiments.data import ExperimentData
from simmerge_core.experiments.result import Result


def flat_rows(results: Mapping[str, Result], data: ExperimentData) -> list[dict[str, Any]]:
    """One row per experiment, action set, split, k and method."""
    protocol = {
        "directions": [str(d) for d in data.along],
        "honest": all(d.honest for d in data.along),
        "metric": sorted(set(data.counted["metric"].to_list())),
    }
    rows: list[dict[str, Any]] = []

    def add(section: Mapping[str, Any], split: str, actions: str) -> None:
        about = {"split": split, "k": 2, "actions": actions, "target": section["target"], "protocol": protocol}
        rows.extend(pair_rows(section, about))

    for name, section in _figures(results, "pairs").items():
        add(section, "pairs", name)
    for name, kinds in _figures(results, "held_out").items():
        for kind, section in kinds.items():
            add(section, f"held_out_{kind}", name)
    figures = _figures(results, "actions")
    for name in ("selected", "wide"):
        if name in figures:
            add(figures[name], "pairs", name)
            if "held_out_experts" in figures[name]:
                add(figures[name]["held_out_experts"], "held_out_experts", name)
    for name, sizes in _figures(results, "plans").items():
        for k, section in sizes.items():
            about = {"split": "configurations", "k": int(k), "actions": name, "protocol": protocol}
            rows.extend(plan_rows(section, about | {"target": section["target"]}))
    figures = _figures(results, "transfer")
    for name in ("paper", "extended"):
        if name in figures:
            add(figures[name], "larger_models", name)
    for key in ("plans", "plans_adapted"):
        for k, section in figures.get(key, {}).items():
            about = {"split": "larger_models", "k": int(k), "actions": "paper", "protocol": protocol}
            about |= {"adapted": key == "plans_adapted", "target": section["target"]}
            rows.extend(plan_rows(section, about))
    return rows


def _figures(results: Mapping[str, Result], name: str) -> Mapping[str, Any]:
    return results[name].figures if name in results else {}
