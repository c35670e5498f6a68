"""What is known about a ranked plan and a trained selector, as Dagster metadata: intervals, what is open, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from simmerge_pipeline.plain_metadata import rounded, table

if TYPE_CHECKING:
    from simmerge_core.planning import Settlement
    from simmerge_core.selector import Explanation, Selector, TrainingRows

_HEAD = "| feature group | contribution | farthest from the training mean |\n| --- | ---: | --- |"


def plan_metadata(ranked: pl.DataFrame, settlement: Settlement, steps: Sequence[Explanation]) -> Mapping[str, Any]:
    """Interval of the best plan, the plans that cannot be told apart from it, what would settle it, and why it is."""
    best = ranked.row(0, named=True)
    return {
        "predicted utility": rounded(best["predicted_utility"]),
        "interval": f"{best['low']:.4f} to {best['high']:.4f} at {settlement.level:.0%}",
        "cannot be told apart from the best": _ranks(settlement.cannot_be_told_apart),
        "evaluations that would settle it": _settling(settlement),
        "why": dg.MetadataValue.md("\n\n".join(_why(number, step) for number, step in enumerate(steps, start=1))),
    }


def calibration_metadata(name: str, selector: Selector, rows: TrainingRows) -> Mapping[str, Any]:
    """Level, mean half-width and coverage of the intervals, out of fold and, where there are, on test pairs."""
    from simmerge_core.selector import interval_coverage

    held_out = selector.metrics["interval_coverage"]
    told: dict[str, Any] = {"out of fold": held_out}
    if "every_action" in held_out["unseen"]:
        told["out of fold, unseen checkpoints"] = held_out["unseen"]
    test = rows.of_split("test")
    if len(test):
        told["test pairs"] = interval_coverage(selector, test)
    columns = (f"intervals at {held_out['level']:.0%}", "every action", "chosen action", "mean half-width")
    cells = [
        (where, *(found[key] for key in ("every_action", "chosen_action", "mean_half_width")))
        for where, found in told.items()
    ]
    return {
        f"{name} intervals": table(columns, cells),
        f"{name} interval coverage": rounded(told.get("test pairs", held_out)["every_action"]),
    }


def _ranks(ranks: Sequence[int]) -> str:
    return f"plans of rank {', '.join(map(str, ranks))}" if ranks else "none"


def _settling(settlement: Settlement) -> str:
    if not settlement.plans:
        return "none: the best plan leads"
    return (
        f"{settlement.plans} plans on {settlement.items_each} items each, for a difference of "
        f"{settlement.difference:.4f}"
    )


def _why(number: int, step: Explanation) -> str:
    about = "" if step.half_width is None else f" ± {step.half_width:.4f}"
    rows = "\n".join(f"| {group} | {contribution:+.4f} | {features} |" for group, contribution, features in step.rows())
    return (
        f"**Step {number}:** {step.action} is predicted {step.lead:.4f}{about} above {step.reference}, "
        f"{step.usual:+.4f} with every feature at its mean.\n\n{_HEAD}\n{rows}"
    )
