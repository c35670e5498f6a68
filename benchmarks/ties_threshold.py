"""The threshold tau of the paper's TIES, tuned on the validation pairs (App. A.3).

    python benchmarks/ties_threshold.py [--json] [--catalog demo/catalog.yaml] [--data data] [--pairs 40] [--workers 2]

Merges validation pairs at each tau, scores them on item set A of their expert-auxiliary tasks, and prints the mean
utility per tau; no training or test pair is looked at, and no item of set B. Scores that the data root holds already
are not computed again. Exit code 1 if the operator's default tau is not the best, ties within 0.001 aside.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import polars as pl

from simmerge_core.catalog import load_catalog
from simmerge_core.errors import SimMergeError
from simmerge_core.evaluation import EvaluationStore
from simmerge_core.labels import design, label_pairs
from simmerge_core.operators import OPERATORS
from simmerge_core.operators.actions import parse_action
from simmerge_core.tables import CHECKPOINTS, DataRoot

TAUS = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1)
TIE = 0.001


def utilities(catalog_path: Path, data: Path, *, pairs: int, workers: int) -> dict[str, float]:
    """Mean utility by tau over the first `pairs` validation pairs; empty where there is none."""
    catalog, root = load_catalog(catalog_path), DataRoot(data)
    prints = dict(root.scan(CHECKPOINTS).select("checkpoint", "fingerprint").collect().iter_rows())
    rows = design(catalog, catalog.checkpoint_ids)
    rows = rows.filter((pl.col("split") == "validation") & (pl.col("kind") == "expert_auxiliary"))
    rows = rows.join(rows.select("a", "b").unique(maintain_order=True).head(pairs), on=["a", "b"], how="semi")
    actions = {tau: parse_action("ties@0.5" if tau == 0.0 else f"ties@0.5,tau={tau!r}") for tau in TAUS}
    labels = label_pairs(
        rows,
        list(actions.values()),
        catalog,
        store=EvaluationStore(root.root / "evaluations"),
        fingerprints=prints,
        workers=workers,
    )
    deciding = pl.DataFrame(
        [(b.name, b.metrics[0]) for t in catalog.tasks for b in t.benchmarks],
        schema=["benchmark", "metric"],
        orient="row",
    )
    scored = labels.filter(pl.col("item_set") == "A").join(deciding, on=["benchmark", "metric"], how="semi")
    by_action = dict(scored.group_by("action").agg(pl.col("utility").mean()).iter_rows())
    return {f"{tau:g}": by_action[str(action)] for tau, action in actions.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--catalog", type=Path, default=Path("demo/catalog.yaml"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    try:
        found = utilities(options.catalog, options.data, pairs=options.pairs, workers=options.workers)
    except SimMergeError as error:
        print(error, file=sys.stderr)
        return 2
    default = OPERATORS["ties"].params["tau"].default
    best = max(found, key=found.__getitem__)
    if options.json:
        print(json.dumps({"utility": found, "best": float(best), "default": default}))
    else:
        for tau, utility in found.items():
            print(f"tau {tau:>6}: {utility:.4f}")
    return int(found[f"{default:g}"] < found[best] - TIE)


if __name__ == "__main__":
    sys.exit(main())
