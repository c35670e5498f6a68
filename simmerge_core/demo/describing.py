"""Measure a demo catalog: how far each expert stands from the base, and what it scores on every task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch
import yaml
from torch import Tensor
from torch.nn import functional

from simmerge_core.demo.checkpoint_folder import RECIPE_FILE, read_parameters
from simmerge_core.demo.engine import Engine
from simmerge_core.demo.packing import pack
from simmerge_core.demo.presets import Architecture
from simmerge_core.demo.recipes import Recipe
from simmerge_core.demo.tokenizer import END_ID, END_TEXT, encode
from simmerge_core.demo.training import one_thread
from simmerge_core.errors import CatalogError


def read_items(path: Path) -> list[tuple[str, str]]:
    """(prompt, answer without the end token) of an item file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["prompt"], row["answer"].removesuffix(END_TEXT)) for row in rows]


def score_items(
    parameters: Tensor, architecture: Architecture, items: Sequence[tuple[str, str]]
) -> tuple[Tensor, Tensor]:
    """Score teacher-forced answers, end token included.

    Returns
    -------
    exact, log_likelihood
        Shapes (n,), in the order of `items`: whether greedy decoding gives the answer, and its log-probability (nats,
        float64 sums of float32 log-probabilities).
    """
    encoded = [(encode(prompt), encode(answer)) for prompt, answer in items]
    batch = pack([prompt + answer for prompt, answer in encoded], heads=architecture.heads, groups=6)
    targets, owner, scored = [], [], []
    for i in batch.order:
        prompt, answer = encoded[i]
        targets += [*prompt[1:], *answer, END_ID]
        owner += [i] * (len(prompt) + len(answer))
        scored += [False] * (len(prompt) - 1) + [True] * (len(answer) + 1)
    keep = torch.tensor(scored)
    target, item = torch.tensor(targets)[keep], torch.tensor(owner)[keep]
    with torch.inference_mode():
        values = Engine(parameters, architecture).logits(batch)[keep]
        chosen = functional.log_softmax(values, dim=-1).gather(1, target[:, None])[:, 0].double()
        wrong = (values.argmax(dim=-1) != target).double()
        log_likelihood = torch.zeros(len(items), dtype=torch.float64).index_add_(0, item, chosen)
        errors = torch.zeros(len(items), dtype=torch.float64).index_add_(0, item, wrong)
    return errors == 0, log_likelihood


def _cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    return float(a @ b / (a.norm() * b.norm()))


def describe(catalog: Path) -> pl.DataFrame:
    """Describe a demo catalog that `build` wrote.

    Parameters
    ----------
    catalog
        Path of its catalog.yaml.

    Returns
    -------
    DataFrame
        A row per checkpoint, the base first: `checkpoint`, `domain`, its recipe (`steps`, `rate`, `decay`, `frozen`,
        `replay`), `cosine_to_base`, `norm_ratio` (norm over the base's), and per task `em_<task>` (exact match) and
        `probability_<task>` (mean probability of the answer) on items A and B together.

    Raises
    ------
    CatalogError
        If a checkpoint was not written by `build`.
    """
    folder = Path(catalog).parent
    declared = yaml.safe_load(Path(catalog).read_text(encoding="utf-8"))
    names = [entry["id"] for entry in [declared["base"], *declared["checkpoints"]]]
    for name in names:
        if not (folder / "checkpoints" / name / RECIPE_FILE).is_file():
            raise CatalogError(
                f"Checkpoint {name!r} of {catalog} has no {RECIPE_FILE}: only catalogs written by "
                "simmerge_core.demo.build can be described."
            )
    tasks = {
        task["id"]: [
            item for part in ("A", "B") for item in read_items(folder / "tasks" / task["id"] / f"{part}.jsonl")
        ]
        for task in declared["tasks"]
    }
    rows: list[dict[str, object]] = []
    base: Tensor | None = None
    with one_thread():
        for name in names:
            recorded = json.loads((folder / "checkpoints" / name / RECIPE_FILE).read_text(encoding="utf-8"))
            recipe = Recipe.from_dict(recorded["recipe"])
            parameters = read_parameters(folder / "checkpoints" / name, recipe.architecture)
            base = parameters if base is None else base
            row: dict[str, object] = {
                "checkpoint": name,
                "domain": recipe.domain,
                "steps": recipe.steps,
                "rate": recipe.rate,
                "decay": recipe.decay,
                "frozen": recipe.frozen,
                "replay": 1.0 - recipe.domain_weights[recipe.domain] if recipe.domain else 0.0,
                "cosine_to_base": _cosine(parameters, base),
                "norm_ratio": float(parameters.double().norm() / base.double().norm()),
            }
            for task, items in tasks.items():
                exact, log_likelihood = score_items(parameters, recipe.architecture, items)
                row[f"em_{task}"] = float(exact.double().mean())
                row[f"probability_{task}"] = float(log_likelihood.exp().mean())
            rows.append(row)
    return pl.DataFrame(rows)
