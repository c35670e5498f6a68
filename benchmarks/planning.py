"""Cost of ranking plans as the pool grows, on synthetic features: exhaustive and beam.

    python benchmarks/planning.py [--json] [--pools 10 20 40 80] [--k 3] [--seeds 5] [--any-domain] [--threads N]

Each line is one pool and k: how many plans there are, wall and processor seconds of both searches (medians over pools
of several seeds) and the ratio of their processor seconds, how far the beam's best plan is from the optimum, and the
peak memory of either search. Every search runs in a process of its own that has only loaded the selector and drawn the
features; importing and drawing are not timed.

    python benchmarks/planning.py --json --pools 100 --k 3 4 --seeds 5 1

checks the stated limits; the exit code is 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.features.columns import FEATURE_VERSION
from simmerge_core.operators.actions import ACTION_SETS
from simmerge_core.planning import search
from simmerge_core.planning.parallel import cores
from simmerge_core.planning.pool import pool_of
from simmerge_core.selector import Selector, SelectorConfig, TrainingRows, train

DOMAINS = ("math", "code", "multilingual", "rag", "instruct")
METHODS = ("exhaustive", "beam")
LIMIT_POOL = 100  # the limits are for a catalog of this many checkpoints
LIMIT_SECONDS = {3: 10.0, 4: 120.0}  # wall, exhaustive, per k
LIMIT_MEMORY_MB = 2048.0
LIMIT_LOSS_PERCENT = 1.0
LIMIT_RATIO = {4: 20.0}  # exhaustive over beam, per k


def synthetic_features(checkpoints: int, names: tuple[str, ...], *, task: str, seed: int) -> pl.DataFrame:
    """Every ordered pair of a pool on one task; a feature is the mean of a trait of both sides plus noise."""
    rng = np.random.default_rng(seed)
    ids = pool_ids(checkpoints)
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


def pool_ids(checkpoints: int) -> list[str]:
    """Ids of a pool, the domains in turn."""
    return [f"{DOMAINS[i % len(DOMAINS)]}-{i:03d}" for i in range(checkpoints)]


def plan_count(checkpoints: int, k: int, *, restrict: bool) -> int:
    """Plans that exhaustive search scores: ordered, the interchangeable first two once."""
    domains = [DOMAINS[i % len(DOMAINS)] for i in range(checkpoints)]
    pool = pool_of(pool_ids(checkpoints), domains, tasks=("math",), k=k, one_per_domain=restrict)
    return pool.subsets() * math.factorial(k) // 2


def peak_memory_mb() -> float:
    """Peak memory of this process; where /proc does not say, what the kernel has counted for it."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage also counts the parent's memory at the time of the fork.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform != "darwin" else 1024) / 1024


def one_search(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """What the process of its own does."""
    model = Selector.load(folder)
    names = model.feature_names
    small = synthetic_features(10, names, task="math", seed=0)
    search(model, small, pool_ids(10), "math", k=3)  # imports happen here
    checkpoints, k = options.pools[0], options.k[0]
    features = synthetic_features(checkpoints, names, task="math", seed=options.seeds[0])
    start, cpu = time.perf_counter(), time.process_time()
    found = search(
        model,
        features,
        pool_ids(checkpoints),
        "math",
        k=k,
        method=options.only,
        one_per_domain=not options.any_domain,
        threads=options.threads,
    )
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "best": float(found["predicted_utility"][0]),
        "peak_memory_mb": peak_memory_mb(),
    }


def in_own_process(
    folder: Path, method: str, checkpoints: int, k: int, seed: int, options: argparse.Namespace
) -> dict[str, float]:
    """`one_search` there."""
    command = [sys.executable, __file__, "--only", method, "--selector", str(folder)]
    command += ["--pools", str(checkpoints), "--k", str(k), "--seeds", str(seed), "--threads", str(options.threads)]
    command += ["--any-domain"] if options.any_domain else []
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def measure(folder: Path, checkpoints: int, k: int, seeds: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both searches over pools of several seeds."""
    runs = {
        method: [in_own_process(folder, method, checkpoints, k, checkpoints + 1000 * s, options) for s in range(seeds)]
        for method in METHODS
    }
    out: dict[str, Any] = {
        "checkpoints": checkpoints,
        "k": k,
        "one_per_domain": not options.any_domain,
        "threads": options.threads,
        "plans": plan_count(checkpoints, k, restrict=not options.any_domain),
        "seeds": seeds,
    }
    for method in METHODS:
        for key, digits in (("seconds", 4), ("cpu_seconds", 4)):
            out[f"{method}_{key}"] = round(median(run[key] for run in runs[method]), digits)
        out[f"{method}_peak_memory_mb"] = round(max(run["peak_memory_mb"] for run in runs[method]), 1)
    out["exhaustive_over_beam_cpu"] = round(out["exhaustive_cpu_seconds"] / out["beam_cpu_seconds"], 2)
    losses = [100 * (1 - b["best"] / e["best"]) for e, b in zip(runs["exhaustive"], runs["beam"], strict=True)]
    out["beam_loss_percent_mean"] = round(sum(losses) / len(losses), 4)
    out["beam_loss_percent_worst"] = round(max(losses), 4)
    return out


def missed(row: dict[str, Any]) -> list[str]:
    """The stated limits that a line misses."""
    if row["checkpoints"] != LIMIT_POOL:
        return []
    memory = max(row[f"{method}_peak_memory_mb"] for method in METHODS)
    checks = {
        f"exhaustive search takes {row['exhaustive_seconds']} s": row["exhaustive_seconds"]
        > LIMIT_SECONDS.get(row["k"], math.inf),
        f"peak memory is {memory} MB": memory >= LIMIT_MEMORY_MB,
        f"the beam loses {row['beam_loss_percent_worst']} %": row["beam_loss_percent_worst"] > LIMIT_LOSS_PERCENT,
        f"the beam is {row['exhaustive_over_beam_cpu']} times cheaper": row["exhaustive_over_beam_cpu"]
        < LIMIT_RATIO.get(row["k"], 0.0),
    }
    return [f"k = {row['k']}: {text}" for text, bad in checks.items() if bad]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pools", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--k", type=int, nargs="+", default=[3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[5], help="pools per k; the last number holds on")
    parser.add_argument("--any-domain", action="store_true", help="allow several checkpoints of a domain in a plan")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--only", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--selector", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        json.dump(one_search(options.selector, options), sys.stdout)
        return 0
    seeds = options.seeds + options.seeds[-1:] * len(options.k)
    with tempfile.TemporaryDirectory() as folder:
        model = trained(SelectorConfig().feature_names()).save(Path(folder) / "selector")
        rows = [measure(model, n, k, s, options) for k, s in zip(options.k, seeds, strict=False) for n in options.pools]
    if options.json:
        json.dump({"planning": rows}, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        for row in rows:
            print("  ".join(f"{key} {value:g}" for key, value in row.items()))
    complaints = [text for row in rows for text in missed(row)]
    for text in complaints:
        print(text, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
