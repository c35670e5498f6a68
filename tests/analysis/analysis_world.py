"""A small synthetic world: a catalog with its label, score and feature tables, made from one function."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.catalog import Catalog
from simmerge_core.operators.actions import ACTION_SETS, parse_action

DOMAINS = {f"{domain}-{n}": domain for domain in ("math", "code", "rag") for n in (1, 2, 3)}


@dataclass
class World:
    catalog: Catalog
    labels: pl.DataFrame
    standalone: pl.DataFrame
    features: pl.DataFrame
    plans: pl.DataFrame
    utility: dict[tuple[str, str, str, str, str], float]
    alone: dict[tuple[str, str, str], float]


def benchmark_row(utility: float, item_set: str, task: str, **other: Any) -> dict[str, Any]:
    return {
        **other,
        "task": task,
        "benchmark": f"bench_{task}",
        "metric": "acc,none",
        "item_set": item_set,
        "seed": 0,
        "utility": utility,
        "stderr": 0.01,
        "n": 200,
        "evaluation_key": f"{sorted(other.items())}{item_set}{task}",
    }


def make_catalog(domains: dict[str, str] = DOMAINS) -> Catalog:
    tasks = sorted(set(domains.values()))
    return Catalog.model_validate(
        {
            "version": 1,
            "base": {"id": "base", "path": "base"},
            "checkpoints": [{"id": c, "path": c, "domain": d} for c, d in domains.items()],
            "tasks": [
                {"id": t, "probes": f"{t}.jsonl", "benchmarks": [{"name": f"bench_{t}", "metrics": ["acc,none"]}]}
                for t in tasks
            ],
        }
    )


def make_world(seed: int = 0, *, noise: float = 0.02, actions: tuple[str, ...] | None = None) -> World:
    """Every cross-domain pair on both parents' tasks; three quarters train, the rest test."""
    rng = np.random.default_rng(seed)
    texts = actions or tuple(map(str, ACTION_SETS["extended"]))
    catalog = make_catalog()
    tasks = catalog.task_ids
    alone: dict[tuple[str, str, str], float] = {}
    rows_alone = []
    for c in (*DOMAINS, "base"):
        for t in tasks:
            level = 0.8 if DOMAINS.get(c) == t else 0.3
            for s in "AB":
                alone[c, t, s] = level + noise * rng.standard_normal()
                rows_alone.append(benchmark_row(alone[c, t, s], s, t, checkpoint=c, fingerprint=f"f-{c}"))
    utility: dict[tuple[str, str, str, str, str], float] = {}
    rows, feature_rows = [], []
    pairs = [(a, b) for a, b in itertools.combinations(sorted(DOMAINS), 2) if DOMAINS[a] != DOMAINS[b]]
    for number, (a, b) in enumerate(pairs):
        split = "test" if number % 4 == 0 else "validation" if number % 8 == 1 else "train"
        for t in (DOMAINS[a], DOMAINS[b]):
            true = dict(zip(texts, 0.5 + 0.08 * rng.standard_normal(len(texts)), strict=True))
            for text, s in itertools.product(texts, "AB"):
                value = true[text] + noise * rng.standard_normal()
                utility[t, a, b, text, s] = value
                action = parse_action(text)
                key = f"{a}|{b}|{text}"
                rows.append(
                    benchmark_row(
                        value,
                        s,
                        t,
                        checkpoint=b,
                        a=a,
                        b=b,
                        kind="expert_auxiliary",
                        action=text,
                        operator=action.operator,
                        alpha=action.alpha,
                        split=split,
                        a_fingerprint=f"f-{a}",
                        b_fingerprint=f"f-{b}",
                        recipe_key=key,
                    )
                )
            for x, y, turn in ((a, b, False), (b, a, True)):
                seen = {str(parse_action(o).mirrored()) if turn else o: v for o, v in true.items()}
                feature_rows.append(
                    {
                        "checkpoint": b,
                        "task": t,
                        "a": x,
                        "b": y,
                        "a_domain": DOMAINS[x],
                        "b_domain": DOMAINS[y],
                        **{f"x_{o}": v for o, v in seen.items()},
                    }
                )
    return World(
        catalog,
        pl.DataFrame(rows),
        pl.DataFrame(rows_alone),
        pl.DataFrame(feature_rows),
        _plans(rng, noise),
        utility,
        alone,
    )


def _plans(rng: np.random.Generator, noise: float) -> pl.DataFrame:
    operators = tuple(map(str, ACTION_SETS["paper"]))
    rows = []
    for members in (("code-1", "math-1", "rag-1"), ("code-2", "math-3", "rag-2")):
        for task in ("code", "math"):
            done = set()
            for order in itertools.permutations(members):
                for steps in itertools.product(operators, repeat=2):
                    key = (frozenset(order[:2]), order[2], steps)
                    if key in done:
                        continue
                    done.add(key)
                    last = 0.1 if DOMAINS[order[-1]] == task else 0.0
                    true = 0.4 + last + 0.05 * rng.standard_normal()
                    rows += [
                        benchmark_row(
                            true + noise * rng.standard_normal(),
                            s,
                            task,
                            configuration="+".join(sorted(members)),
                            k=3,
                            order=list(order),
                            actions=list(steps),
                            recipe_key=f"{order}{steps}",
                        )
                        for s in "AB"
                    ]
    return pl.DataFrame(rows)


@dataclass
class TableSelector:
    """Predicts what the feature columns x_<action> say, transformed."""

    actions: tuple[str, ...]
    transform: Callable[[np.ndarray], np.ndarray] = lambda x: x

    def predict(self, features: pl.DataFrame) -> SimpleNamespace:
        values = features.select(f"x_{o}" for o in self.actions).to_numpy()
        return SimpleNamespace(utilities=self.transform(values))
