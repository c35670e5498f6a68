"""Made-up but valid results to ask the command line about: features of pairs, and a selector trained on them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from simmerge_core.tables import PAIRWISE_FEATURES, DataRoot


def write_features(data: Path, ids: tuple[str, ...], task: str) -> None:
    """Made-up but valid features of all ordered pairs of `ids`, different from pair to pair."""
    root = DataRoot(data)
    for number, id in enumerate(ids):
        rows = [
            _row(a, b, 0.1 + 0.8 * ((number * 7 + other * 3 + side) * 0.618 % 1))
            for other, partner in enumerate(ids[:number])
            for side, (a, b) in enumerate(((id, partner), (partner, id)))
        ]
        if rows:
            root.write(PAIRWISE_FEATURES, pl.DataFrame(rows), checkpoint=id, task=task)


def _row(a: str, b: str, value: float) -> dict[str, object]:
    row: dict[str, object] = {}
    for column in PAIRWISE_FEATURES.columns:
        row[column.name] = value if column.dtype == pl.Float64 else 1 if column.dtype == pl.Int64 else column.name
    domains = {"a_domain": a.partition("-")[0], "b_domain": b.partition("-")[0]}
    return row | domains | {"a": a, "b": b, "a_fingerprint": f"f-{a}", "b_fingerprint": f"f-{b}"}


def train_selector(data: Path) -> None:
    """A selector of two small networks, trained for a moment on made-up labels."""
    from simmerge_core.operators.actions import ACTION_SETS
    from simmerge_core.selector import SelectorConfig, train, training_rows

    features = DataRoot(data).scan(PAIRWISE_FEATURES).collect()
    labels = pl.DataFrame(
        [
            {
                "task": row["task"],
                "a": row["a"],
                "b": row["b"],
                "kind": "expert_auxiliary",
                "action": str(action),
                "split": ("train", "train", "validation")[(len(row["a"]) + len(row["b"]) + place) % 3],
                "a_fingerprint": row["a_fingerprint"],
                "b_fingerprint": row["b_fingerprint"],
                "benchmark": "t",
                "metric": "acc,none",
                "item_set": "A",
                "seed": 0,
                "utility": 0.3 + 0.1 * number * row["weight_cosine"],
                "stderr": 0.05,
                "n": 64,
            }
            for place, row in enumerate(features.filter(pl.col("a") < pl.col("b")).iter_rows(named=True))
            for number, action in enumerate(ACTION_SETS["extended"])
        ]
    )
    rows = training_rows(features, labels, actions=ACTION_SETS["extended"])
    config = SelectorConfig(
        widths=(4,), learning_rates=(6e-3,), dropouts=(0.1,), members=2, tuning_members=1, epochs=2, patience=2
    )
    train(rows, config=config, seed=0).save(data / "selector" / "extended")
