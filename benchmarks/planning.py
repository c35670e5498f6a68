"""Cost of ranking plans as the pool grows, on synthetic features: k = 3, exhaustive and beam.

    python benchmarks/planning.py [--json] [--pools 10 20 40 80] [--k 3]

Each line is one pool: ordered choices without any rule, wall and processor seconds of both searches
(and their ratio), peak memory so far, and how far the beam's best plan is
from the optimum.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time

import numpy as np
import polars as pl

from simmerge_core.features.columns import FEATURE_VERSION
from simmerge_core.operators.actions import ACTION_SETS
from simmerge_core.planning import search
from simmerge_core.selector import Selector, SelectorConfig, TrainingRows, train

DOMAINS = ("math", "code", "multilingual", "rag", "instruct")


def synthetic_features(checkpoints: int, names: tuple[str, ...], *, task: str, seed: int) -> pl.DataFrame:
    """Every ordered pair of a pool on one task; a feature is the mean of a trait of both sides plus noise."""
    rng = np.random.default_rng(seed)
    ids = [f"{DOMAINS[i % len(DOMAINS)]}-{i:03d}" for i in range(checkpoints)]
    traits = rng.normal(size=(checkpoints, len(names)))
    a, b = np.divmod(np.arange(checkpoints**2), checkpoints)
    a, b = a[a != b], b[a != b]
    x = 0.5 * (traits[a] - traits[b]) + 0.1 * rng.normal(size=(len(a), len(names)))
    names_of = np.array(ids)
    keys = {
        "a": names_of[a],
        "b": names_of[b],
        "task": [task] * len(a),
        "a_domain": [DOMAINS[i % len(DOMAINS)] for i in a],
        "b_domain": [DOMAINS[i % len(DOMAINS)] for i in b],
        "feature_version": [FEATURE_VERSION] * len(a),
    }
    return pl.DataFrame({**keys, **{name: x[:, i] for i, name in enumerate(names)}})


def trained(names: tuple[str, ...]) -> Selector:
    """A selector of the default size, trained for a few epochs: its cost is that of a real one."""
    config = SelectorConfig(epochs=4, widths=(64,), learning_rates=(6e-3,), dropouts=(0.1,))
    features = synthetic_features(24, names, task="math", seed=0)
    rng = np.random.default_rng(1)
    x = features.select(names).to_numpy()
    actions = ACTION_SETS["extended"]
    utilities = 0.4 + 0.05 * np.tanh(x @ rng.normal(size=(len(names), len(actions))) / len(names) ** 0.5)
    meta = features.select("a", "b", "task", "a_domain", "b_domain").with_columns(
        pl.lit("expert_auxiliary").alias("kind"), pl.lit("train").alias("split")
    )
    return train(TrainingRows(features, utilities, meta, actions), config=config, seed=0)


def measure(model: Selector, checkpoints: int, k: int, names: tuple[str, ...], *, restrict: bool) -> dict[str, float]:
    """Both searches over one pool."""
    features = synthetic_features(checkpoints, names, task="math", seed=checkpoints)
    pool = sorted(set(features["a"].to_list()))
    out: dict[str, float] = {"checkpoints": checkpoints, "k": k, "unrestricted_orders": math.perm(checkpoints, k)}
    best = {}
    for method in ("exhaustive", "beam"):
        start, cpu = time.perf_counter(), time.process_time()
        found = search(model, features, pool, "math", k=k, top=10, method=method, one_per_domain=restrict)
        out[f"{method}_seconds"] = round(time.perf_counter() - start, 4)
        out[f"{method}_cpu_seconds"] = round(time.process_time() - cpu, 4)
        best[method] = float(found["predicted_utility"][0])
    out["beam_over_exhaustive_time"] = round(out["beam_cpu_seconds"] / out["exhaustive_cpu_seconds"], 4)
    out["beam_loss_percent"] = round(100 * (1 - best["beam"] / best["exhaustive"]), 4)
    out["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pools", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--any-domain", action="store_true", help="allow several checkpoints of a domain in a plan")
    options = parser.parse_args()
    names = SelectorConfig().feature_names()
    model = trained(names)
    rows = [measure(model, n, options.k, names, restrict=not options.any_domain) for n in options.pools]
    if options.json:
        json.dump({"planning": rows}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    for row in rows:
        print("  ".join(f"{key} {value:g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
