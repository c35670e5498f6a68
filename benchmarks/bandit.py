"""Cost and exactness of the bandits: rounds of choosing and learning, growth, and other ways to do the same.

    python benchmarks/bandit.py [--json] [--rounds 10000] [--dimension 64] [--arms 10] [--repeat 3]

Five questions. How long do 10,000 rounds of `select` and `update` take, for LinTS with the exact propensities it logs,
and for LinUCB, each in a process of its own (median wall seconds, peak memory)? How do seconds per round grow with the
coordinates and with the arms? What do the same rounds cost in MABWiser, and by solving the batch posterior anew in
each round? How far is the posterior from the batch posterior after all rounds, on an ordinary stream and on one whose
coordinates span six orders of magnitude? How far are propensities from adaptive quadrature?

The exit code is 1 if a limit is missed: 5 seconds for the rounds, 1e-8 for the posterior and for the propensities.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from simmerge_core.bandit import LinearBandit, LinTS, LinUCB, probability_of_best

POLICIES: dict[str, type[LinearBandit]] = {"lints": LinTS, "linucb": LinUCB}
COORDINATES = (16, 32, 64, 128, 256)
ARMS = (2, 5, 10, 20, 40)
LIMIT_SIZE = (10_000, 64, 10)  # rounds, coordinates and arms that the limit is for
LIMIT_SECONDS = 5.0  # wall, on two cores
LIMIT_ERROR = 1e-8


def stream(rounds: int, dimension: int, arms: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) contexts of length about 1, and (n, K) rewards in [0, 1]: linear, with noise."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rounds, dimension)) / dimension**0.5
    rewards = 0.5 + 0.15 * z @ rng.normal(size=(dimension, arms)) + 0.05 * rng.normal(size=(rounds, arms))
    return z, np.clip(rewards, 0.0, 1.0)


def bandit_of(kind: str, dimension: int, arms: int) -> LinearBandit:
    return POLICIES[kind]([f"arm-{n}" for n in range(arms)], dimension, exploration=0.1)


def play(bandit: LinearBandit, z: np.ndarray, rewards: np.ndarray, *, start: int = 0) -> np.ndarray:
    """Choose and learn in every round; the arms that were chosen."""
    chosen = np.empty(len(z), dtype=np.int64)
    for n in range(len(z)):
        choice = bandit.select(z[n], round_id=str(start + n))
        chosen[n] = bandit.number(choice.arm)
        bandit.update(z[n], choice.arm, float(rewards[n, chosen[n]]))
    return chosen


def seconds_of(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def peak_memory_mb() -> float:
    """Peak memory of this process; where /proc does not say, what the kernel has counted for it."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform != "darwin" else 1024) / 1024


def one_run(kind: str, options: argparse.Namespace) -> dict[str, float]:
    """What the process of its own does: all rounds of one policy, after imports and some rounds of another bandit."""
    z, rewards = stream(options.rounds, options.dimension, options.arms)
    play(bandit_of(kind, options.dimension, options.arms), z[:50], rewards[:50])
    bandit, before, busy = bandit_of(kind, options.dimension, options.arms), peak_memory_mb(), time.process_time()
    seconds = seconds_of(lambda: play(bandit, z, rewards))
    cpu, after = time.process_time() - busy, peak_memory_mb()
    state = sum(getattr(bandit.posterior, name).nbytes for name in ("precision", "moment", "factor", "mean"))
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_memory_mb": after,
        "grown_mb": after - before,
        "state_mb": state / 2**20,
    }


def rounds_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """`one_run` of both policies, repeated."""
    command = [sys.executable, __file__, "--rounds", str(options.rounds), "--dimension", str(options.dimension)]
    command += ["--arms", str(options.arms)]
    out = []
    for kind in POLICIES:
        runs = [
            json.loads(subprocess.run([*command, "--only", kind], check=True, stdout=subprocess.PIPE).stdout)
            for _ in range(options.repeat)
        ]
        row: dict[str, Any] = {key: round(median(run[key] for run in runs), 3) for key in runs[0]}
        row["rounds_per_second"] = round(options.rounds / row["seconds"])
        if (options.rounds, options.dimension, options.arms) == LIMIT_SIZE:
            row |= {"limit_seconds": LIMIT_SECONDS, "met": row["seconds"] <= LIMIT_SECONDS}
        out.append({"policy": kind, **row})
    return out


def cost(kind: str, dimension: int, arms: int, *, rounds: int = 400) -> dict[str, float]:
    """Least microseconds of processor per `select` and per `update` over five parts of a stream, once it is warm.

    Both run on one thread, and the processor's time is less the neighbours' affair than the wall's.
    """
    z, rewards = stream(2 * rounds, dimension, arms)
    bandit = bandit_of(kind, dimension, arms)
    chosen = play(bandit, z[:rounds], rewards[:rounds])

    def select(part: np.ndarray) -> None:
        for n in part:
            bandit.select(z[n], round_id=str(n))

    def update(part: np.ndarray) -> None:
        for n in part:
            arm = chosen[n - rounds]
            bandit.update(z[n], bandit.arms[arm], rewards[n, arm])

    out = {}
    parts = np.array_split(np.arange(rounds, 2 * rounds), 5)
    for name, work in (("select_us", select), ("update_us", update)):
        least = min(seconds_of(partial(work, part), time.process_time) / len(part) for part in parts)
        out[name] = round(1e6 * least, 1)
    return out


def exponent(sizes: tuple[int, ...], costs: list[float]) -> float:
    """Slope of log cost over log size."""
    return round(float(np.polyfit(np.log(sizes), np.log(costs), 1)[0]), 2)


def growth(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Cost per round at several sizes, with exponents over all sizes and over the last doubling."""
    out = []
    for kind in POLICIES:
        for name, sizes in (("coordinates", COORDINATES), ("arms", ARMS)):
            rows = [
                cost(kind, *((size, options.arms) if name == "coordinates" else (options.dimension, size)))
                for size in sizes
            ]
            for what in ("select_us", "update_us"):
                costs = [row[what] for row in rows]
                out.append(
                    {
                        "policy": kind,
                        "of": what,
                        "over": name,
                        "sizes": dict(zip(map(str, sizes), costs, strict=True)),
                        "exponent": exponent(sizes, costs),
                        "exponent_of_last_doubling": exponent(sizes[-2:], costs[-2:]),
                    }
                )
    return out


def mabwiser_rounds(kind: str, z: np.ndarray, rewards: np.ndarray) -> float:
    """Seconds per round of MABWiser's `predict` and `partial_fit`; it begins with a reward of each arm, not timed."""
    from mabwiser.mab import MAB, LearningPolicy

    policy = {"lints": LearningPolicy.LinTS, "linucb": LearningPolicy.LinUCB}[kind](alpha=0.1, l2_lambda=1.0)
    arms = rewards.shape[1]
    theirs = MAB(list(range(arms)), policy, seed=0)
    theirs.fit(np.arange(arms), np.diagonal(rewards[:arms]), z[:arms])

    def rounds() -> None:
        for n in range(arms, len(z)):
            arm = theirs.predict(z[n : n + 1])
            theirs.partial_fit(np.array([arm]), rewards[n, [arm]], z[n : n + 1])

    return seconds_of(rounds) / (len(z) - arms)


def solved_rounds(z: np.ndarray, rewards: np.ndarray) -> float:
    """Seconds per round of LinUCB that keeps A and b, and solves for every arm's mean and A⁻¹z in each round."""
    arms, d = rewards.shape[1], z.shape[1]
    precision, moment = np.tile(np.eye(d), (arms, 1, 1)), np.zeros((arms, d))

    def rounds() -> None:
        for n in range(len(z)):
            right = np.stack([moment, np.broadcast_to(z[n], (arms, d))], axis=2)
            mean, along = np.moveaxis(np.linalg.solve(precision, right), 2, 0)
            arm = int(np.argmax(mean @ z[n] + 0.1 * np.sqrt(along @ z[n])))
            precision[arm] += np.outer(z[n], z[n])
            moment[arm] += rewards[n, arm] * z[n]

    return seconds_of(rounds) / len(z)


def against_others(options: argparse.Namespace, *, rounds: int = 400) -> list[dict[str, Any]]:
    """Both sides in turn, `repeat` times; medians."""
    z, rewards = stream(rounds, options.dimension, options.arms)
    others: list[tuple[str, str, Callable[[], float]]] = [
        ("lints", "MABWiser LinTS, without propensities", lambda: mabwiser_rounds("lints", z, rewards)),
        ("linucb", "MABWiser LinUCB", lambda: mabwiser_rounds("linucb", z, rewards)),
        ("linucb", "numpy.linalg.solve in each round", lambda: solved_rounds(z, rewards)),
    ]
    out = []
    for kind, name, other in others:
        pairs = []
        for _ in range(options.repeat):
            ours = seconds_of(lambda k=kind: play(bandit_of(k, options.dimension, options.arms), z, rewards)) / rounds
            pairs.append((ours, other()))
        us, them = (1e6 * median(side) for side in zip(*pairs, strict=True))
        out.append(
            {
                "policy": kind,
                "reference": name,
                "round_us": round(us, 1),
                "reference_round_us": round(them, 1),
                "reference_over_ours": round(median(b / a for a, b in pairs), 2),
            }
        )
    return out


def exactness(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Largest differences from the batch posterior after all rounds, over arms."""
    d, arms = options.dimension, options.arms
    z, rewards = stream(options.rounds, d, arms)
    out = []
    for name, contexts in (("ordinary", z), ("scales from 1e-3 to 1e3", d**0.5 * z * np.logspace(-3, 3, d))):
        bandit = bandit_of("lints", d, arms)
        chosen = play(bandit, contexts, rewards)
        means, covariances, conditions = [], [], []
        for arm in range(arms):
            # By QR, which does not square the contexts: float64's normal equations would be the less exact side.
            rows = np.vstack([np.eye(d), contexts[chosen == arm]])
            r = np.concatenate([np.zeros(d), rewards[chosen == arm, arm]])
            inverse = np.linalg.inv(np.linalg.qr(rows, mode="r"))
            factor = bandit.posterior.factor[arm]
            expected = inverse @ inverse.T
            means.append(np.abs(bandit.posterior.mean[arm] - np.linalg.lstsq(rows, r, rcond=None)[0]).max())
            covariances.append(np.abs(factor.T @ factor - expected).max())
            conditions.append(np.linalg.cond(inverse) ** 2)
        row = {"stream": name, "condition": float(f"{max(conditions):.1e}")}
        row |= {"mean": float(f"{max(means):.1e}"), "covariance": float(f"{max(covariances):.1e}")}
        out.append({**row, "met": bool(max(means + covariances) <= LIMIT_ERROR)})
    return out


def by_quadrature(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """P(arm is the highest draw) by adaptive quadrature between marks, one arm after another."""
    from scipy.integrate import quad
    from scipy.special import ndtr

    marks = np.unique((mean[:, None] + deviation[:, None] * np.array([-10, -6, -4, -2, -1, 0, 1, 2, 4, 6, 10])).ravel())

    def probability(arm: int) -> float:
        others = np.arange(len(mean)) != arm

        def density(v: float) -> float:
            u = (v - mean) / deviation
            return float(np.exp(-0.5 * u[arm] ** 2) * np.prod(ndtr(u[others]))) / (np.sqrt(2 * np.pi) * deviation[arm])

        low, high = mean[arm] - 10 * deviation[arm], mean[arm] + 10 * deviation[arm]
        ends = [low, *marks[(marks > low) & (marks < high)], high]
        return float(sum(quad(density, a, b, epsabs=1e-13, epsrel=1e-10)[0] for a, b in pairwise(ends)))

    return np.array([probability(arm) for arm in range(len(mean))])


def propensities(*, cases: int = 6) -> list[dict[str, Any]]:
    """Largest difference from quadrature, and the cost of a call, for several numbers of arms and ratios of scales."""
    rng = np.random.default_rng(0)
    out = []
    for arms in (2, 5, 10, 20):
        worst, times = 0.0, []
        for ratio in (1.0, 30.0, 1e3):
            for _ in range(cases if arms < 20 else 1):
                mean, deviation = rng.normal(size=arms), np.exp(rng.uniform(-np.log(ratio), 0.0, arms))
                found = probability_of_best(mean, deviation)
                worst = max(worst, float(np.abs(found - by_quadrature(mean, deviation)).max()))
                once = seconds_of(lambda m=mean, s=deviation: [probability_of_best(m, s) for _ in range(50)]) / 50
                times.append(1e6 * once)
        row = {"arms": arms, "cases": len(times), "largest_error": float(f"{worst:.1e}"), "call_us": median(times)}
        out.append({**row, "call_us": round(row["call_us"], 1), "met": worst <= LIMIT_ERROR})
    return out


def show(results: dict[str, list[dict[str, Any]]]) -> None:
    for name, rows in results.items():
        print(name.replace("_", " "))
        for row in rows:
            shown = {**row, **({"met": "met" if row["met"] else "NOT MET"} if "met" in row else {})}
            print("  " + "  ".join(f"{key} {value}" for key, value in shown.items()))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--arms", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=POLICIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        json.dump(one_run(options.only, options), sys.stdout)
        return 0
    results = {
        "rounds": rounds_of(options),
        "growth": growth(options),
        "references": against_others(options),
        "posterior_error": exactness(options),
        "propensity_error": propensities(),
    }
    if options.json:
        json.dump(results, sys.stdout, indent=2)
        print()
    else:
        show(results)
    missed = [f"{name}: {row}" for name, rows in results.items() for row in rows if not row.get("met", True)]
    for text in missed:
        print(f"limit missed in {text}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
