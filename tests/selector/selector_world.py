"""A synthetic world whose law is known: experts with a norm, utilities that depend on the ratio of two norms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from simmerge_core.features.columns import FEATURE_VERSION, FEATURES
from simmerge_core.operators.actions import Action, parse_action

TASKS = ("math", "code", "rag")


@dataclass(frozen=True)
class World:
    """Features and labels that satisfy the table schemas, and the true utilities behind the labels."""

    features: pl.DataFrame
    labels: pl.DataFrame
    domains: dict[str, str]
    log_norm: dict[str, float]
    quality: dict[str, float]
    actions: tuple[Action, ...]

    def truth(self, a: str, b: str, task: str) -> np.ndarray:
        """(actions,) utility without noise."""
        return true_utilities(self.log_norm, self.quality, self.domains, a, b, task, self.actions)


def true_utilities(
    log_norm: dict[str, float],
    quality: dict[str, float],
    domains: dict[str, str],
    a: str,
    b: str,
    task: str,
    actions: tuple[Action, ...],
) -> np.ndarray:
    """Shrunken expert → slerp, larger → ties, and the side with more weight contributes more of its quality."""
    own = {c: quality[c] if domains[c] == task else 0.1 for c in (a, b)}
    expert, other = (a, b) if own[a] >= own[b] else (b, a)
    ratio = log_norm[expert] - log_norm[other]
    out = []
    for action in actions:
        share = 1.0 - action.alpha if expert == a else action.alpha
        level = share * own[expert] + (1.0 - share) * own[other]
        slope = {"linear": 0.0, "slerp": -0.12, "ties": 0.12}.get(action.operator, 0.0)
        bonus = {"linear": 0.01}.get(action.operator, 0.0)
        out.append(level + bonus + slope * np.tanh(3.0 * ratio))
    return np.array(out)


def split_of(a: str, b: str, rng_value: float) -> str:
    return "test" if rng_value < 0.25 else "validation" if rng_value < 0.4 else "train"


def make_world(
    *,
    per_domain: int = 6,
    actions: tuple[str, ...] = ("linear@0.5", "slerp@0.5", "ties@0.5"),
    noise: float = 0.01,
    seed: int = 0,
    tasks: tuple[str, ...] = TASKS,
) -> World:
    rng = np.random.default_rng(seed)
    chosen = tuple(map(parse_action, actions))
    domains = {f"{task}-{i:02d}": task for task in tasks for i in range(per_domain)}
    ids = sorted(domains)
    log_norm = {c: float(rng.normal(0.0, 0.3)) for c in ids}
    quality = {c: float(rng.uniform(0.5, 0.9)) for c in ids}
    noise_columns = {c: rng.normal(size=len(FEATURES)) for c in ids}
    feature_rows, label_rows = [], []
    splits = {(a, b): split_of(a, b, rng.random()) for i, a in enumerate(ids) for b in ids[i + 1 :]}
    for task in tasks:
        for a in ids:
            for b in ids:
                if a != b:
                    feature_rows.append(_feature_row(a, b, task, domains, log_norm, quality, noise_columns))
        for (a, b), split in splits.items():
            if task not in (domains[a], domains[b]) or domains[a] == domains[b]:
                continue
            truth = true_utilities(log_norm, quality, domains, a, b, task, chosen)
            for action, value in zip(chosen, truth, strict=True):
                for item_set in ("A", "B"):
                    label_rows.append(
                        {
                            "checkpoint": a,
                            "task": task,
                            "a": a,
                            "b": b,
                            "kind": "expert_auxiliary",
                            "action": str(action),
                            "operator": action.operator,
                            "alpha": action.alpha,
                            "split": split,
                            "a_fingerprint": "0",
                            "b_fingerprint": "0",
                            "recipe_key": "0",
                            "benchmark": f"{task}_items",
                            "metric": "acc,none",
                            "item_set": item_set,
                            "seed": 0,
                            "utility": float(value + rng.normal(0.0, noise)),
                            "stderr": noise,
                            "n": 200,
                            "evaluation_key": "0",
                        }
                    )
    return World(pl.DataFrame(feature_rows), pl.DataFrame(label_rows), domains, log_norm, quality, chosen)


def _feature_row(
    a: str,
    b: str,
    task: str,
    domains: dict[str, str],
    log_norm: dict[str, float],
    quality: dict[str, float],
    noise: dict[str, np.ndarray],
) -> dict[str, object]:
    row: dict[str, object] = {
        "checkpoint": max(a, b),
        "task": task,
        "a": a,
        "b": b,
        "a_domain": domains[a],
        "b_domain": domains[b],
        "a_fingerprint": "0",
        "b_fingerprint": "0",
        "probe_key": "0",
        "feature_version": FEATURE_VERSION,
    }
    own = {c: quality[c] if domains[c] == task else 0.1 for c in (a, b)}
    for i, column in enumerate(FEATURES):
        mixed = 0.5 * (noise[a][i] + noise[b][i])
        if column.unit == "cosine":
            value = float(np.tanh(mixed))
        elif column.low == 0.0 and column.high == 1.0:
            value = float(1.0 / (1.0 + np.exp(-mixed)))
        elif column.low == 0.0:
            value = float(np.exp(mixed))
        else:
            value = float(mixed)
        row[column.name] = value
    row["weight_log_norm_ratio"] = log_norm[a] - log_norm[b]
    row["weight_norm_a"], row["weight_norm_b"] = float(np.exp(log_norm[a])), float(np.exp(log_norm[b]))
    row["weight_log_norm_a_base"], row["weight_log_norm_b_base"] = log_norm[a], log_norm[b]
    row["last_entropy_a"], row["last_entropy_b"] = 1.0 - own[a], 1.0 - own[b]
    return row
