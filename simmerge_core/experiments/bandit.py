"""Online learning under a shift of domain (§4.5): Fig. 7 and 8, and longer streams of pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.analysis.bootstrap import cluster_weights, interval, ratio_of_means, weighted_mean
from simmerge_core.bandit.context import Context
from simmerge_core.bandit.policies import LinearBandit, UniformBandit
from simmerge_core.bandit.steps import PlanStep, plan_step, step_blocks
from simmerge_core.bandit.warming import WarmStart, warm_start
from simmerge_core.errors import SelectionError
from simmerge_core.experiments.bandit_streams import Merge, Stream, configurations, merge_stream, pair_stream
from simmerge_core.experiments.data import ExperimentData, Progress
from simmerge_core.experiments.experiment import Catalogs
from simmerge_core.experiments.result import Result
from simmerge_core.metrics import delta_aux, delta_expert
from simmerge_core.operators.actions import parse_action

LEARNING = ("lints", "linucb")
TOLD_ALL = "told_all"
POLICIES = ("uniform", "best_fixed", "frozen", "not_updated", *LEARNING, TOLD_ALL)
"""In the order of the tables: uniform choice, the best action of the logged labels, the offline selector, LinTS's own
posterior as it was before the first round, the two bandits that learn, and LinTS when it is told what every action
would have brought: its feedback costs as many merges as there are actions. The oracle has no regret."""

Steps = Callable[[Merge, tuple[float, ...]], PlanStep]


def lacking(catalogs: Catalogs) -> str | None:
    """What the catalog has not got: the new domain, or enough merges with it that rest on no training pair."""
    data, rules = catalogs.full, catalogs.full.protocol.bandit
    if rules.shift not in data.catalog.task_ids:
        return f"a task and experts of the domain {rules.shift}"
    try:
        for k, count in rules.merges.items():
            configurations(data.catalog, sorted(data.fingerprints), k=k, count=count, new=rules.shift)
    except SelectionError:
        return (
            f"more checkpoints: {sum(rules.merges.values())} merges with the domain {rules.shift} and no training pair"
        )
    return None


def run(catalogs: Catalogs, progress: Progress) -> Result:
    """The paper's 60 merges, then every pair with the new domain under the paper's and under the extended actions."""
    data = catalogs.full
    streams = [
        merge_stream(data, lambda m, f: progress(m, 0.4 * f)),
        pair_stream(data, "paper", "expert_task"),
        pair_stream(data, "extended", "both_tasks"),
    ]
    figures: dict[str, Any] = {}
    rows = []
    for number, stream in enumerate(streams):
        start = 0.4 + 0.2 * number
        progress(stream.name, start)
        part, frame = _stream(data, stream, lambda m, f, start=start: progress(m, start + 0.2 * f))  # type: ignore[misc]
        figures[stream.name] = part
        rows.append(frame)
    return Result(pl.concat(rows), figures)


def _stream(data: ExperimentData, stream: Stream, progress: Progress) -> tuple[dict[str, Any], pl.DataFrame]:
    seed = data.protocol.choices.seed
    config = replace(data.settings, heads="shared")  # one network for all utilities, as `bandit.encoder.ENCODER`
    warm = {
        policy: warm_start(
            stream.warm,
            policy=policy,
            reward_range=data.catalog.bandit.reward_range,
            config=config,
            seed=seed,
            progress=lambda m, f: progress(m, 0.3 * f),
        )
        for policy in LEARNING
    }
    choices = _fixed_choices(data, stream, warm["lints"])
    runs = _Runs(stream, warm)
    seeds = range(data.protocol.bandit.seeds)
    regret = np.zeros((len(POLICIES), len(seeds), len(stream.merges)))  # in the order of arrival
    arrived = np.zeros((len(seeds), len(stream.merges)), dtype=np.int64)
    utility = np.zeros((len(POLICIES), len(seeds), len(stream.merges)))  # in the order of the stream
    for s in seeds:
        progress(f"{stream.name}: run {s + 1} of {len(seeds)}", 0.3 + 0.7 * s / len(seeds))
        order = np.random.default_rng([seed, s]).permutation(len(stream.merges))
        arrived[s] = order
        for p, policy in enumerate(POLICIES):
            scored = (
                np.array([choices[policy][i] for i in order]) if policy in choices else runs.run(policy, order, seed=s)
            )
            best = np.array([stream.merges[i].best for i in order])
            regret[p, s], utility[p, s, order] = best - scored, scored
    return _figures(data, stream, warm, regret, utility), _rows(stream, arrived, regret)


def _fixed_choices(data: ExperimentData, stream: Stream, warm: WarmStart) -> dict[str, list[float]]:
    """Utility of every merge under policies that do not learn."""
    fixed = stream.actions[int(np.argmax(stream.warm.utilities.mean(axis=0)))]
    selector = data.selector(stream.warm)

    def by_selector(merge: Merge, alphas: tuple[float, ...]) -> tuple[np.ndarray, bool]:
        blocks, turned = step_blocks(stream.table(merge), merge.target, merge.order[: len(alphas) + 2], list(alphas))
        each = [selector.predict_block(block).utilities[0] for block in blocks]
        return np.einsum("t,ta->a", np.array(merge.target.weights), np.stack(each)), turned

    bandit = warm.bandit.copy()
    bandit.add_task(stream.new_task)

    def by_posterior(merge: Merge, alphas: tuple[float, ...]) -> tuple[np.ndarray, bool]:
        step = _step(warm, stream, merge, alphas)
        return bandit.predict(step.context)[0], step.turned

    def greedy(predict: Callable[[Merge, tuple[float, ...]], tuple[np.ndarray, bool]], merge: Merge) -> float:
        steps: list[str] = []
        while len(steps) < merge.k - 1:
            values, turned = predict(merge, tuple(parse_action(a).alpha for a in steps))
            action = parse_action(stream.actions[int(np.argmax(np.round(values, 12)))])
            steps.append(str(action.mirrored() if turned else action))
        return merge.utilities[tuple(steps)]

    def always(merge: Merge, alphas: tuple[float, ...]) -> tuple[np.ndarray, bool]:
        values = np.array([float(a == fixed) for a in stream.actions])
        return values, step_blocks(stream.table(merge), merge.target, merge.order[: len(alphas) + 2], list(alphas))[1]

    rules = {"best_fixed": always, "frozen": by_selector, "not_updated": by_posterior}
    return {name: [greedy(rule, merge) for merge in stream.merges] for name, rule in rules.items()}


def _step(warm: WarmStart, stream: Stream, merge: Merge, alphas: tuple[float, ...]) -> PlanStep:
    return plan_step(warm.encoder, stream.table(merge), merge.target, merge.order[: len(alphas) + 2], list(alphas))


@dataclass
class _Runs:
    """Policies that draw or learn, run on the merges in an order of arrival."""

    stream: Stream
    warm: Mapping[str, WarmStart]

    def __post_init__(self) -> None:
        self._known: dict[tuple[str, int, tuple[float, ...]], PlanStep] = {}

    def run(self, policy: str, order: np.ndarray, *, seed: int) -> np.ndarray:
        """Utility of each merge as it arrives. Rewards of a merge's steps come after it was made as a whole."""
        bandit = self._started(policy, seed)
        scored = []
        for at in order:
            merge = self.stream.merges[at]
            steps: list[tuple[Context, str]] = []
            actions: tuple[str, ...] = ()
            for number in range(1, merge.k):
                step = self._step(policy, at, tuple(parse_action(a).alpha for a in actions))
                arm = bandit.arms[bandit.draw(step.context, round_id=f"{at}/{number}")]
                steps.append((step.context, arm))
                actions = (*actions, str(step.action(arm)))
            for number, (context, arm) in enumerate(steps, start=1):
                before, turned = actions[: number - 1], self._turned(policy, at, actions[: number - 1])
                for told in bandit.active if policy == TOLD_ALL else (arm,):
                    action = str(parse_action(told).mirrored()) if turned else told
                    bandit.update(context, told, merge.utilities[(*before, action)])
            scored.append(merge.utilities[actions])
        return np.array(scored)

    def _started(self, policy: str, seed: int) -> LinearBandit:
        warm = self.warm.get(policy, self.warm["lints"])
        bandit = warm.bandit.copy()
        if policy == "uniform":
            bandit = UniformBandit(
                bandit.arms, bandit.dimension, reward_range=bandit.reward_range, source=bandit.source
            )
        bandit.seed = seed
        bandit.add_task(self.stream.new_task)
        return bandit

    def _turned(self, policy: str, at: int, actions: tuple[str, ...]) -> bool:
        return self._step(policy, at, tuple(parse_action(a).alpha for a in actions)).turned

    def _step(self, policy: str, at: int, alphas: tuple[float, ...]) -> PlanStep:
        source = policy if policy in self.warm else "lints"
        key = (source, at, alphas)
        if key not in self._known:
            self._known[key] = _step(self.warm[source], self.stream, self.stream.merges[at], alphas)
        return self._known[key]


def _figures(
    data: ExperimentData,
    stream: Stream,
    warm: Mapping[str, WarmStart],
    regret: np.ndarray,
    utility: np.ndarray,
) -> dict[str, Any]:
    rules, noise = data.protocol.bandit, data.protocol.noise
    total = np.cumsum(regret, axis=2)  # (policies, seeds, merges)
    low, high = np.quantile(total, rules.band, axis=1)
    weights = cluster_weights(np.array([(m.new, m.other) for m in stream.merges]), draws=noise.draws, seed=noise.seed)
    lost = {p: _mean_regret(stream, utility[i]) for i, p in enumerate(POLICIES)}
    early = min(rules.pair_rounds, len(stream.merges)) - 1
    return {
        "merges": len(stream.merges),
        "by_k": {str(k): sum(m.k == k for m in stream.merges) for k in sorted({m.k for m in stream.merges})},
        "actions": list(stream.actions),
        "warm_pairs": len(np.unique(stream.warm.pairs)),
        "dimension": warm["lints"].bandit.dimension,
        "seeds": rules.seeds,
        "tuned": {p: w.tuning.as_json() for p, w in warm.items() if w.tuning is not None},
        "early": {"merges": early + 1, "regret": {p: float(total[i, :, early].mean()) for i, p in enumerate(POLICIES)}},
        "regret": {
            p: {
                "mean": float(total[i, :, -1].mean()),
                "band": [float(low[i, -1]), float(high[i, -1])],
                "per_merge": interval(weighted_mean(lost[p]), weights).as_dict(),
                "of_uniform": interval(ratio_of_means(lost[p], lost["uniform"]), weights).as_dict(),
                "of_frozen": interval(ratio_of_means(lost[p], lost["frozen"]), weights).as_dict(),
                "above_start": interval(weighted_mean(lost[p] - lost["not_updated"]), weights).as_dict(),
                "last_quarter": float(regret[i, :, -(len(stream.merges) // 4) :].mean()),
            }
            for i, p in enumerate(POLICIES)
        },
        "within_seed": {
            f"{p} below {other}": float(np.mean(total[POLICIES.index(p), :, -1] < total[POLICIES.index(other), :, -1]))
            for p, other in (("lints", "uniform"), ("lints", "frozen"), ("lints", "linucb"))
        },
        "deltas": _deltas(stream, utility),
    }


def _mean_regret(stream: Stream, utility: np.ndarray) -> np.ndarray:
    """(merges,) mean over the runs of what was lost."""
    return np.array([m.best for m in stream.merges]) - utility.mean(axis=0)


def _deltas(stream: Stream, utility: np.ndarray) -> dict[str, Any]:
    """Change in percent against expert and auxiliary by policy (§3.4): per target task, then the mean over tasks."""
    every = {p: utility[i].mean(axis=0) for i, p in enumerate(POLICIES)}
    every["oracle"] = np.array([m.best for m in stream.merges])
    sizes = sorted({m.k for m in stream.merges})
    kinds = {"all": np.ones(len(stream.merges), dtype=bool)} | (
        {str(k): np.array([m.k == k for m in stream.merges]) for k in sizes} if len(sizes) > 1 else {}
    )
    tasks = np.array([str(m.target) for m in stream.merges])
    expert = np.array([m.expert for m in stream.merges])
    auxiliary = np.array([m.auxiliary for m in stream.merges])
    found: dict[str, Any] = {}
    for kind, mask in kinds.items():
        per_policy: dict[str, Any] = {}
        for policy, values in every.items():
            changes = {
                task: (
                    delta_expert(float(values[here].mean()), float(expert[here].mean())),
                    delta_aux(float(values[here].mean()), float(auxiliary[here].mean())),
                )
                for task in sorted(set(tasks[mask]))
                for here in (mask & (tasks == task),)
            }
            sides = zip(*changes.values(), strict=True)
            expert_side, auxiliary_side = ([v for v in side if v is not None] for side in sides)
            per_policy[policy] = {
                "tasks": {task: {"expert": e, "auxiliary": a} for task, (e, a) in changes.items()},
                "expert": float(np.mean(expert_side)) if expert_side else None,
                "auxiliary": float(np.mean(auxiliary_side)) if auxiliary_side else None,
            }
        found[kind] = per_policy
    return found


def cumulative(rows: pl.DataFrame, stream: str, policy: str) -> np.ndarray:
    """(runs, merges) cumulative regret of a policy on a stream, from the rows of the result."""
    own = rows.filter((pl.col("stream") == stream) & (pl.col("policy") == policy)).sort("seed", "round")
    regret = own["regret"].to_numpy().astype(np.float64)
    return np.cumsum(regret.reshape(own["seed"].n_unique(), -1), axis=1)


def _rows(stream: Stream, arrived: np.ndarray, regret: np.ndarray) -> pl.DataFrame:
    """One row per policy, run and round."""
    policies, seeds, rounds = regret.shape
    merge = np.broadcast_to(arrived, (policies, seeds, rounds)).ravel()
    return pl.DataFrame(
        {
            "stream": pl.Series([stream.name] * merge.size, dtype=pl.String),
            "policy": np.repeat(POLICIES, seeds * rounds),
            "seed": np.tile(np.repeat(np.arange(seeds, dtype=np.int16), rounds), policies),
            "round": np.tile(np.arange(1, rounds + 1, dtype=np.int16), policies * seeds),
            "task": pl.Series([str(m.target) for m in stream.merges])[merge],
            "k": pl.Series([m.k for m in stream.merges], dtype=pl.Int8)[merge],
            "order": pl.Series(["+".join(m.order) for m in stream.merges])[merge],
            "regret": regret.ravel().astype(np.float32),
        }
    )
