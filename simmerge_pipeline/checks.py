"""Asset checks that run inside the step, on frames that are at hand: a process of their own would cost seconds each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import dagster as dg
import polars as pl

_ROUNDING = 1e-9  # cosines may pass 1 by rounding


_SEVERITY = {
    # A pair or merge that is missing is made up for by another run; a value out of range is wrong.
    "pairs_complete": dg.AssetCheckSeverity.WARN,
    "labels_cover_actions": dg.AssetCheckSeverity.WARN,
}


_MEANING = {
    dg.AssetCheckSeverity.WARN: "A failure is a warning: another run makes up for what is missing.",
    dg.AssetCheckSeverity.ERROR: "A failure is an error.",
}


def _severity(check: str) -> dg.AssetCheckSeverity:
    return _SEVERITY.get(check, dg.AssetCheckSeverity.ERROR)


class Verdicts:
    """Verdicts per check over the partitions of a run; a check passes when it passed for all of them."""

    def __init__(self) -> None:
        self._problems: dict[str, dict[str, Any]] = {}
        self._examined: dict[str, int] = {}

    def add(self, check: str, key: str, problem: Any, *, examined: int = 1) -> None:
        """Note one partition's outcome: `problem` is falsy when there is none."""
        self._examined[check] = self._examined.get(check, 0) + examined
        problems = self._problems.setdefault(check, {})
        if problem:
            problems[key] = problem

    def results(self) -> list[dg.AssetCheckResult]:
        """One result per check that looked at something."""
        return [
            dg.AssetCheckResult(
                check_name=check,
                passed=not problems,
                severity=_severity(check),
                metadata={
                    "examined": self._examined[check],
                    **({"problems": dg.MetadataValue.json(problems)} if problems else {}),
                },
            )
            for check, problems in self._problems.items()
        ]


def specs(asset: str, checks: Mapping[str, str]) -> list[dg.AssetCheckSpec]:
    """Declarations of the checks of one asset: name to description, which says how severe a failure is."""
    return [
        dg.AssetCheckSpec(name, asset=asset, description=f"{text} {_MEANING[_severity(name)]}")
        for name, text in checks.items()
    ]


NO_NAN = {"no_nan": "No value is NaN, and none is null where the schema allows none."}
COSINES = {"cosines_in_range": "Every cosine lies in [-1, 1]."}
DIVERGENCES = {"kl_not_negative": "Every Kullback-Leibler divergence is at least 0."}
PAIRS = {"pairs_complete": "Every pair of two present checkpoints is held by the partition of one of them."}
LABELS = {"labels_cover_actions": "Every designed merge is scored under every action, on every metric and item set."}
EXECUTED = {"folder_scores_as_in_memory": "The merged folder, loaded from disk, scores as the plan does in memory."}


def nans(frame: pl.DataFrame, *, nullable: Set[str] = frozenset()) -> dict[str, int]:
    """Number of NaN and forbidden null values by column, where there are any."""
    counts = {
        name: (values.is_nan().sum() if values.dtype.is_float() else 0)
        + (0 if name in nullable else values.null_count())
        for name, values in frame.to_dict(as_series=True).items()
    }
    return {name: int(count) for name, count in counts.items() if count}


def outside(frame: pl.DataFrame, columns: Iterable[str], *, low: float | None, high: float | None) -> dict[str, float]:
    """The worst value by column, where one lies outside [low, high]."""
    found: dict[str, float] = {}
    for name in columns:
        values = frame[name].drop_nulls()
        if values.is_empty():
            continue
        least, most = float(values.min()), float(values.max())  # type: ignore[arg-type]
        if low is not None and least < low - _ROUNDING:
            found[name] = least
        elif high is not None and most > high + _ROUNDING:
            found[name] = most
    return found


def missing_pairs(checkpoint: str, present: Iterable[str], held: Set[tuple[str, str]]) -> list[str]:
    """The present others with which neither partition holds the pair."""
    return [
        d for d in sorted(set(present) - {checkpoint}) if (checkpoint, d) not in held and (d, checkpoint) not in held
    ]


def missing_labels(labels: pl.DataFrame, designed: pl.DataFrame, actions: Sequence[str], per_merge: int) -> list[str]:
    """Designed merges whose number of scores is not the expected one, at most twenty, as ``a+b action``.

    Parameters
    ----------
    labels
        Rows of table `merge_labels` of one partition.
    designed
        Pairs ``a, b`` that the partition is to label.
    per_merge
        Scores of one merge: benchmarks × metrics × item sets × seeds.
    """
    wanted = designed.select("a", "b").join(pl.DataFrame({"action": list(actions)}), how="cross")
    counted = labels.group_by("a", "b", "action").len("scores")
    short = wanted.join(counted, on=["a", "b", "action"], how="left").filter(pl.col("scores").fill_null(0) != per_merge)
    return [f"{a}+{b} {action}" for a, b, action in short.select("a", "b", "action").head(20).iter_rows()]
