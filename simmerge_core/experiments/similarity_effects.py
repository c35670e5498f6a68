"""How similarity goes with the operators' success (App. G): Fig. 15 (correlations), 16 (win rates), 17 (tails)."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis.bootstrap import cluster_weights
from simmerge_core.analysis.multiway import any_order
from simmerge_core.analysis.protocol import tied_best
from simmerge_core.experiments.data import ExperimentData, Progress
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.plans import executed
from simmerge_core.experiments.result import Result

METRICS = {
    "KL": "kl_ab_mean",
    "attention cosine": "attention_cosine_mean",
    "weight cosine": "weight_cosine",
    "weight L2": "weight_l2_relative",
}
"""The paper's four metrics; the distance relative to the norms, since checkpoints of one catalog differ in norm."""

BINS = 5

_FLAT = 1e-24
"""A variance below this share of the largest square is rounding."""


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """All expert-auxiliary pairs, and the designed configurations of three and four.

    A configuration's similarity is the mean over the expert's pairs with its auxiliaries; an operator's performance on
    it is the mean over all orders. Both item sets together: nothing is chosen here.
    """
    data = catalogs.full
    progress("collecting", 0.0)
    frame = pl.concat([_pairs(data), _plans(data, progress)])
    figures: dict[str, Any] = {}
    for setting in ("PAIR", "TRIPLE", "QUAD"):
        here = frame.filter(pl.col("setting") == setting)
        if here.is_empty():
            continue
        operators = here["operator"].unique(maintain_order=True).to_list()
        scores = np.stack([here.filter(pl.col("operator") == o)["utility"].to_numpy() for o in operators], axis=1)
        one = here.filter(pl.col("operator") == operators[0])
        relative = scores - scores.mean(axis=1, keepdims=True)
        weights = cluster_weights(
            one["expert"].to_numpy()[:, None], draws=data.protocol.noise.draws, seed=data.protocol.noise.seed
        )
        figures[setting] = {"rows": len(one), "operators": operators, "metrics": {}}
        for name in METRICS:
            x = one[name].to_numpy()
            figures[setting]["metrics"][name] = {
                "pearson": _correlations(x, relative, weights),
                "spearman": _correlations(_ranks(x), np.apply_along_axis(_ranks, 0, relative), weights),
                "win_rates": _win_rates(x, scores),
                "tails": _tails(x, scores),
            }
    return Result(frame.with_columns(pl.col(pl.Float64).cast(pl.Float32)), figures)


def _pairs(data: ExperimentData) -> pl.DataFrame:
    units = data.units("paper", "expert_task")
    scores = np.mean([units.utilities[s] for s in units.item_sets], axis=0)[:, 0]
    known = _metrics(data)
    rows = [
        ("PAIR", action.partition("@")[0], str(task), str(a), str(b), float(value), *known[str(task), str(a), str(b)])
        for a, b, (task,), values in zip(units.a, units.b, units.tasks, scores, strict=True)
        for action, value in zip(units.actions, values, strict=True)
    ]
    return _frame(rows)


def _plans(data: ExperimentData, progress: Progress) -> pl.DataFrame:
    known, rows = _metrics(data), []
    actions = [str(a) for a in data.catalog.actions("paper")]
    for c in executed(data, [], [], progress):
        tables = {a: [c.utilities[key] for key in any_order(c, a) if key in c.utilities] for a in actions}
        if any(len(tables[a]) < len(any_order(c, a)) for a in actions):
            continue  # the operators are compared on the same configurations
        for action in actions:
            value = float(np.mean([np.mean(list(t.values())) for t in tables[action]]))
            similar = np.mean([known[c.task, c.expert, other] for other in c.auxiliaries], axis=0)
            setting = "TRIPLE" if c.k == 3 else "QUAD"
            others = "+".join(c.auxiliaries)
            rows.append((setting, action.partition("@")[0], c.task, c.expert, others, value, *similar.tolist()))
    return _frame(rows)


def _frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    names = ["setting", "operator", "task", "expert", "auxiliaries", "utility", *METRICS]
    texts = dict.fromkeys(names[:5], pl.String)
    return pl.DataFrame(rows, schema={**texts, **dict.fromkeys(names[5:], pl.Float64)}, orient="row")


def _metrics(data: ExperimentData) -> dict[tuple[str, str, str], tuple[float, ...]]:
    return {
        (task, a, b): tuple(values)
        for task, a, b, *values in data.features.select("task", "a", "b", *METRICS.values()).iter_rows()
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties by their mean."""
    return pl.Series(values).rank("average").to_numpy()


def _correlations(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> list[dict[str, Any]]:
    """Weighted Pearson correlation of x (n,) with each column of y, with a 95 % interval over the draws (d, n).

    None where x or the column does not vary, or less than half of the draws define the correlation.
    """

    def correlation(w: np.ndarray, v: np.ndarray) -> np.ndarray:
        share = w / w.sum(axis=1, keepdims=True)  # (d, n)
        away_x, away_v = x - (share @ x)[:, None], v - (share @ v)[:, None]  # centred first: squares keep their digits
        spread_x, spread_v = ((share * away**2).sum(axis=1) for away in (away_x, away_v))
        varied = (spread_x > _FLAT * np.square(x).max()) & (spread_v > _FLAT * np.square(v).max())
        product = np.sqrt(np.where(varied, spread_x * spread_v, 1.0))
        return np.where(varied, (share * away_x * away_v).sum(axis=1) / product, np.nan)

    found = []
    for column in y.T:
        value = float(correlation(np.ones((1, len(x))), column)[0])
        draws = correlation(weights, column)
        draws = draws[np.isfinite(draws)]
        known = np.isfinite(value) and 2 * len(draws) >= len(weights)
        low, high = np.quantile(draws, [0.025, 0.975]).tolist() if known else (None, None)
        found.append({"value": value if np.isfinite(value) else None, "ci95": [low, high]})
    return found


def _win_rates(x: np.ndarray, scores: np.ndarray) -> list[list[float]]:
    """P(win) of each operator within equal-mass bins of x, (bins, operators); tied winners share."""
    shares = tied_best(scores)
    order = np.argsort(x, kind="stable")
    return [shares[part].mean(axis=0).tolist() for part in np.array_split(order, min(BINS, len(order)))]


def _tails(x: np.ndarray, scores: np.ndarray) -> list[float]:
    """Eq. 6: win rate of each operator in the top fifth of the metric minus that in its bottom fifth."""
    rates = _win_rates(x, scores)
    return [top - bottom for top, bottom in zip(rates[-1], rates[0], strict=True)]
