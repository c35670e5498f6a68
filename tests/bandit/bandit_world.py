"""A small labelled catalog whose law is known, and the feature map by hand, for the neural part of the bandit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.bandit import Encoder, WarmStart, warm_start
from simmerge_core.catalog import Catalog
from simmerge_core.features.columns import FEATURE_VERSION, FEATURES
from simmerge_core.labels import design
from simmerge_core.operators.actions import parse_action
from simmerge_core.selector import SelectorConfig, TrainingRows, training_rows
from simmerge_core.selector.block import FeatureBlock

DOMAINS = ("chat", "code", "math", "rag")
ACTIONS = ("linear@0.5", "slerp@0.3", "slerp@0.7", "ties@0.5")
QUICK = SelectorConfig(
    heads="shared", members=2, tuning_members=1, widths=(10,), learning_rates=(6e-3,), dropouts=(0.1,), epochs=12
)
SETTINGS = {"exploration": 0.05, "regularisation": 2.0, "label_weight": 3.0}
_SLOPES = {"linear": 0.0, "slerp": -0.1, "ties": 0.1}


@dataclass(frozen=True)
class World:
    """Tables as the pipeline keeps them, on a catalog without files."""

    catalog: Catalog
    features: pl.DataFrame
    labels: pl.DataFrame

    def rows(self, *splits: str) -> TrainingRows:
        """Training rows, of all splits if none is named."""
        found = training_rows(self.features, self.labels, actions=ACTIONS)
        return found.of_split(*splits) if splits else found

    def warm(self, **options: Any) -> WarmStart:
        """A bandit that is not tuned, so that it is there at once."""
        return warm_start(self.rows(), **{"config": QUICK, **SETTINGS, **options})


def make_world(*, per_domain: int = 3, domains: tuple[str, ...] = DOMAINS, share: float = 1.0, seed: int = 0) -> World:
    """Checkpoints of each domain with a norm and a quality; `share` of the pairs of two domains is labelled.

    The expert's share of a merge carries its quality, and which operator helps depends on the ratio of both norms.
    """
    rng = np.random.default_rng(seed)
    catalog = catalog_of({f"{d}-{i:02d}": d for d in domains for i in range(per_domain)}, share=share)
    norm = {c: float(rng.normal(0.0, 0.4)) for c in catalog.checkpoint_ids}
    quality = {c: float(rng.uniform(0.5, 0.9)) for c in catalog.checkpoint_ids}
    own = {c: rng.normal(size=len(FEATURES)) for c in catalog.checkpoint_ids}
    features = [
        _feature_row(catalog, a, b, task, 0.5 * (own[a] + own[b]), norm, quality)
        for task in catalog.task_ids
        for a in catalog.checkpoint_ids
        for b in catalog.checkpoint_ids
        if a != b
    ]
    labels = []
    for a, b, task, kind, split in design(catalog, catalog.checkpoint_ids).iter_rows():
        for text in ACTIONS:
            utility = _utility(catalog, a, b, task, text, norm, quality)
            labels += [_label_row(a, b, task, kind, split, text, item_set, utility) for item_set in ("A", "B")]
    return World(catalog, pl.DataFrame(features), pl.DataFrame(labels))


def catalog_of(domains: dict[str, str], **labels: Any) -> Catalog:
    """A catalog of these checkpoints, with their domains as tasks."""
    share = labels.pop("share", 1.0)
    return Catalog.model_validate({
        "version": 1,
        "base": {"id": "base", "path": "base"},
        "checkpoints": [{"id": c, "path": c, "domain": d} for c, d in domains.items()],
        "tasks": [
            {"id": t, "probes": f"{t}.jsonl", "benchmarks": [{"name": f"{t}_items", "metrics": ["acc,none"]}]}
            for t in sorted(set(domains.values()))
        ],
        "labels": {"expert_auxiliary": share, "auxiliary_auxiliary": 0.0, **labels},
    })  # fmt: skip


def _utility(
    catalog: Catalog, a: str, b: str, task: str, text: str, norm: dict[str, float], quality: dict[str, float]
) -> float:
    action = parse_action(text)
    alone = {c: quality[c] if catalog.domains[c] == task else 0.2 for c in (a, b)}
    expert, other = (a, b) if alone[a] >= alone[b] else (b, a)
    level = (1.0 - action.alpha) * alone[a] + action.alpha * alone[b]
    return level + _SLOPES[action.operator] * math.tanh(3.0 * (norm[expert] - norm[other]))


def _label_row(a: str, b: str, task: str, kind: str, split: str, text: str, item_set: str, utility: float) -> dict:
    action = parse_action(text)
    return {
        "checkpoint": b, "task": task, "a": a, "b": b, "kind": kind, "action": text, "operator": action.operator,
        "alpha": action.alpha, "split": split, "a_fingerprint": "0", "b_fingerprint": "0", "recipe_key": "0",
        "benchmark": f"{task}_items", "metric": "acc,none", "item_set": item_set, "seed": 0,
        "utility": utility + (0.001 if item_set == "A" else -0.001), "stderr": 0.01, "n": 200, "evaluation_key": "0",
    }  # fmt: skip


def _feature_row(
    catalog: Catalog,
    a: str,
    b: str,
    task: str,
    mixed: np.ndarray,
    norm: dict[str, float],
    quality: dict[str, float],
) -> dict[str, object]:
    domains = catalog.domains
    row: dict[str, object] = {
        "checkpoint": max(a, b), "task": task, "a": a, "b": b, "a_domain": domains[a], "b_domain": domains[b],
        "a_fingerprint": "0", "b_fingerprint": "0", "probe_key": "0", "feature_version": FEATURE_VERSION,
    }  # fmt: skip
    for column, value in zip(FEATURES, mixed, strict=True):
        if column.unit == "cosine":
            row[column.name] = float(np.tanh(value))
        elif column.low == 0.0 and column.high == 1.0:
            row[column.name] = float(1.0 / (1.0 + np.exp(-value)))
        else:
            row[column.name] = float(np.exp(value) if column.low == 0.0 else value)
    row["weight_log_norm_ratio"] = norm[a] - norm[b]
    row["weight_log_norm_a_base"], row["weight_log_norm_b_base"] = norm[a], norm[b]
    row["last_entropy_a"] = 1.0 - quality[a] if domains[a] == task else 0.8
    row["last_entropy_b"] = 1.0 - quality[b] if domains[b] == task else 0.8
    return row


def encoded_by_hand(encoder: Encoder, x: np.ndarray, task: str) -> list[float]:
    """z of one feature row, number by number in Python's floats."""
    scaler, w = encoder.scaler, encoder.weights
    clipped = [
        min(max((float(v) - float(m)) / float(s), -scaler.clip), scaler.clip)
        for v, m, s in zip(x, scaler.mean, scaler.scale, strict=True)
    ]
    units = [*clipped, *(1.0 if task == known else 0.0 for known in scaler.tasks)]
    for weight, bias in ((w["w1"], w["b1"]), (w["w2"], w["b2"])):
        units = [
            max(math.fsum([*(u * float(v) for u, v in zip(units, column, strict=True)), float(b)]), 0.0)
            for column, b in zip(weight.T, bias[0], strict=True)
        ]
    return [*(unit / encoder.scale for unit in units), 1.0]


def one_row(x: np.ndarray, task: str) -> FeatureBlock:
    """A feature row on a task; the encoder does not read which side holds the expert."""
    return FeatureBlock(np.asarray(x)[None], np.array([task]), np.array([True]), np.array([False]))
