"""Figure of `held_out`: experts and domains that no model has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from simmerge_core.analysis.figures.style import Form
from simmerge_core.experiments.drawings.forest import forest
from simmerge_core.experiments.drawings.gains import gain_panel, ranked
from simmerge_core.experiments.drawings.names import SETS
from simmerge_core.experiments.drawings.notes import INTERVALS, along, note, pair_count
from simmerge_core.experiments.result import Result

KINDS = {"experts": "experts", "tasks": "domains"}


def held_out(result: Result, form: Form) -> Mapping[str, bytes]:
    """Gain over the best fixed action, a row of panels per action set."""
    names = [name for name in ("paper", "extended") if name in result.figures]
    order = ranked([result.figures[name][kind] for name in names for kind in KINDS])
    grid = [
        [
            gain_panel(
                f"{SETS[name]}, held-out {words} ({result.figures[name][kind]['folds']} folds)",
                result.figures[name][kind],
                order,
            )
            for kind, words in KINDS.items()
        ]
        for name in names
    ]
    picture = forest(
        grid,
        title="Experts and domains that no model has seen",
        note=note(_counts(result.rows, names), along(result.rows), INTERVALS, width=10.0),
        form=form,
        width=10.0,
    )
    return {"held_out": picture}


def _counts(rows: pl.DataFrame, names: Sequence[str]) -> str:
    """Every pair that a fold touches, counted once."""
    found = []
    for name in names:
        own = rows.filter((pl.col("actions") == name) & (pl.col("held_out") == "experts"))
        found.append(f"{pair_count(own)} pairs with the {SETS[name].lower()}")
    return ", ".join(found)
