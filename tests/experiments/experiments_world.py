"""A synthetic labelled catalog whose law is known, as the experiments read it; plans are scored by the same law."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from simmerge_core.analysis.scores import counted_metrics
from simmerge_core.catalog import Catalog
from simmerge_core.experiments.data import ExperimentData, Progress, silent
from simmerge_core.experiments.protocol import Protocol, protocol
from simmerge_core.features.columns import FEATURE_VERSION, FEATURES
from simmerge_core.labels import design
from simmerge_core.operators.actions import Action, parse_action
from simmerge_core.plans import Plan
from simmerge_core.selector import SelectorConfig
from simmerge_core.tables import DataRoot

DOMAINS = ("code", "instruct", "math", "rag")
WIDE = (
    *("linear@0.5", "slerp@0.5", "ties@0.5", "slerp@0.3", "slerp@0.7"),
    *("task_arithmetic@0.5", "norm_balanced@0.5", "rescaled_arithmetic@0.5"),
)
QUICK = SelectorConfig(widths=(16,), learning_rates=(6e-3,), dropouts=(0.1,), members=3, epochs=15, patience=5)
SLOPES = {"linear": 0.0, "slerp": -0.12, "ties": 0.12, "task_arithmetic": 0.05, "norm_balanced": -0.05}


@dataclass(frozen=True)
class Law:
    """Checkpoints with a norm and a quality; utilities follow from both.

    A checkpoint's share of a merge carries its quality; an operator's bonus depends on the expert's norm against the
    others'.
    """

    domains: Mapping[str, str]
    log_norm: Mapping[str, float]
    quality: Mapping[str, float]

    def alone(self, checkpoint: str, task: str) -> float:
        return self.quality[checkpoint] if self.domains.get(checkpoint) == task else 0.1

    def plan(self, plan: Plan, task: str) -> float:
        level, norm = self.alone(plan.checkpoints[0], task), self.log_norm[plan.checkpoints[0]]
        bonus, best = 0.0, level
        for checkpoint, action in zip(plan.checkpoints[1:], plan.actions, strict=True):
            own = self.alone(checkpoint, task)
            ratio = norm - self.log_norm[checkpoint] if best >= own else self.log_norm[checkpoint] - norm
            bonus = 0.5 * bonus + SLOPES.get(action.operator, 0.0) * np.tanh(3.0 * ratio)
            level, best = (1.0 - action.alpha) * level + action.alpha * own, max(best, own)
            norm = (1.0 - action.alpha) * norm + action.alpha * self.log_norm[checkpoint]
        return float(np.clip(level + bonus, 0.0, 1.0))


def noise_of(*parts: str, scale: float) -> float:
    """Noise that depends on its name alone, so that the same model has the same score wherever it is asked for."""
    seed = int.from_bytes(hashlib.sha256("|".join(parts).encode()).digest()[:8], "big")
    return float(np.random.default_rng(seed).normal(0.0, scale))


@dataclass(frozen=True)
class WorldData(ExperimentData):
    """Experiment data whose plans are scored by the law."""

    law: Law = field(default_factory=lambda: Law({}, {}, {}))
    noise: float = 0.01
    asked: list[int] = field(default_factory=list)

    def execute(self, plans: Sequence[tuple[Plan, str]], progress: Progress = silent) -> pl.DataFrame:
        self.asked.append(len(plans))
        rows = []
        for plan, task in plans:
            value, own = self.law.plan(plan, task), (f"{plan}", task)
            rows += _benchmark_rows(task, value, own, self.noise, {
                "configuration": "+".join(sorted(plan.checkpoints)),
                "k": plan.k,
                "order": list(plan.checkpoints),
                "actions": [str(a) for a in plan.actions],
                "recipe_key": str(plan),
            })  # fmt: skip
        return pl.DataFrame(rows)


def _benchmark_rows(
    task: str, value: float, name: Sequence[str], noise: float, other: Mapping[str, object]
) -> list[dict[str, object]]:
    rows = []
    for item_set in ("A", "B"):
        for metric, scale in (("acc,none", noise), ("probability", 0.2 * noise)):
            rows.append({
                **other, "task": task, "benchmark": f"{task}_items", "metric": metric, "item_set": item_set, "seed": 0,
                "utility": value + noise_of(*name, item_set, metric, scale=scale), "stderr": noise, "n": 200,
                "evaluation_key": "|".join((*name, item_set, metric)),
            })  # fmt: skip
    return rows


def catalog_of(domains: Mapping[str, str], multiway: Mapping[int, int]) -> Catalog:
    tasks = sorted(set(domains.values()))
    return Catalog.model_validate({
        "version": 1,
        "base": {"id": "base", "path": "base"},
        "checkpoints": [{"id": c, "path": c, "domain": d} for c, d in domains.items()],
        "tasks": [
            {
                "id": t,
                "probes": f"{t}.jsonl",
                "benchmarks": [{"name": f"{t}_items", "metrics": ["acc,none", "probability"]}],
            }
            for t in tasks
        ],
        "action_sets": {"wide": list(WIDE)},
        "bandit": {"reward_range": [-1.0, 2.0]},  # noise may carry a utility past its range
        "labels": {"multiway": dict(multiway), "auxiliary_auxiliary": 0.3},
    })  # fmt: skip


def quick_protocol() -> Protocol:
    """The protocol with fewer bootstrap draws, online merges and runs: tests look at means."""
    rules = protocol()
    bandit = rules.bandit.model_copy(update={"merges": {2: 4, 3: 4}, "seeds": 2, "pair_rounds": 10})
    return rules.model_copy(update={"noise": rules.noise.model_copy(update={"draws": 200}), "bandit": bandit})


def make_data(
    folder: Path,
    *,
    per_domain: int = 4,
    seed: int = 0,
    noise: float = 0.01,
    multiway: Mapping[int, int] | None = None,
    parameters: int = 1000,
) -> WorldData:
    rng = np.random.default_rng(seed)
    domains = {f"{d}-{i:02d}": d for d in DOMAINS for i in range(1, per_domain + 1)}
    names = [*domains, "base"]
    law = Law(
        domains,
        {c: float(rng.normal(0.0, 0.3)) for c in names},
        {c: float(rng.uniform(0.5, 0.9)) for c in domains} | {"base": 0.3},
    )
    catalog = catalog_of(domains, multiway or {3: 2, 4: 1})
    actions = [parse_action(a) for a in WIDE]
    return WorldData(
        catalog=catalog,
        root=DataRoot(folder),
        labels=_labels(catalog, law, actions, noise),
        scores=_scores(catalog, law, noise),
        features=_features(catalog, law, rng),
        plan_labels=pl.DataFrame(),
        counted=counted_metrics(catalog),
        fingerprints=dict.fromkeys(names, "0"),
        protocol=quick_protocol(),
        parameters=parameters,
        workers=1,
        settings=QUICK,
        law=law,
        noise=noise,
    )


def _labels(catalog: Catalog, law: Law, actions: Sequence[Action], noise: float) -> pl.DataFrame:
    rows = []
    for a, b, task, kind, split in design(catalog, list(law.domains)).iter_rows():
        for action in actions:
            plan = Plan((a, b), (action,))
            rows += _benchmark_rows(task, law.plan(plan, task), (f"{plan}", task), noise, {
                "checkpoint": b, "a": a, "b": b, "kind": kind, "action": str(action), "operator": action.operator,
                "alpha": action.alpha, "split": split, "a_fingerprint": "0", "b_fingerprint": "0",
                "recipe_key": f"{plan}",
            })  # fmt: skip
    return pl.DataFrame(rows)


def _scores(catalog: Catalog, law: Law, noise: float) -> pl.DataFrame:
    return pl.DataFrame([
        row
        for c in (*law.domains, "base")
        for task in catalog.task_ids
        for row in _benchmark_rows(
            task, 0.3 if c == "base" else law.alone(c, task), (c, task), noise, {"checkpoint": c, "fingerprint": "0"}
        )
    ])  # fmt: skip


def _features(catalog: Catalog, law: Law, rng: np.random.Generator) -> pl.DataFrame:
    """Every ordered pair on every task: mostly noise, and what the law depends on in the columns that measure it."""
    noise = {c: rng.normal(size=len(FEATURES)) for c in law.domains}
    rows = []
    for task in catalog.task_ids:
        for a in law.domains:
            for b in law.domains:
                if a != b:
                    rows.append(_feature_row(law, a, b, task, 0.5 * (noise[a] + noise[b])))
    return pl.DataFrame(rows)


def _feature_row(law: Law, a: str, b: str, task: str, mixed: np.ndarray) -> dict[str, object]:
    row: dict[str, object] = {
        "checkpoint": max(a, b), "task": task, "a": a, "b": b, "a_domain": law.domains[a], "b_domain": law.domains[b],
        "a_fingerprint": "0", "b_fingerprint": "0", "probe_key": "0", "feature_version": FEATURE_VERSION,
    }  # fmt: skip
    for column, value in zip(FEATURES, mixed, strict=True):
        if column.unit == "cosine":
            row[column.name] = float(np.tanh(value))
        elif column.low == 0.0 and column.high == 1.0:
            row[column.name] = float(1.0 / (1.0 + np.exp(-value)))
        else:
            row[column.name] = float(np.exp(value) if column.low == 0.0 else value)
    row["weight_log_norm_ratio"] = law.log_norm[a] - law.log_norm[b]
    row["weight_log_norm_a_base"], row["weight_log_norm_b_base"] = law.log_norm[a], law.log_norm[b]
    row["last_entropy_a"], row["last_entropy_b"] = 1.0 - law.alone(a, task), 1.0 - law.alone(b, task)
    return row
