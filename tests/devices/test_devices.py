"""What an accelerator computes is what the CPU computes, within tolerances that are said here.

Skipped where torch has no CUDA device. SIMMERGE_TEST_DEVICE names another device: `cpu` tries the tests themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from simmerge_core.catalog import Catalog, load_catalog
from simmerge_core.checkpoints import load_model, open_checkpoint, resolve
from simmerge_core.evaluation import evaluate
from simmerge_core.merging import execute_plan
from simmerge_core.plans import plan_of
from simmerge_core.probes import read_prompts, record_probes
from simmerge_core.similarity import weight_gram

PLANS = ("linear", "slerp@0.3", "ties@0.5", "task_arithmetic@0.5,lam=0.45", "ties_task_vector@0.5")


@pytest.fixture(scope="module")
def device() -> str:
    named = os.environ.get("SIMMERGE_TEST_DEVICE")
    if not named and not torch.cuda.is_available():
        pytest.skip("torch has no CUDA device here")
    # Matrix products in full float32, as on the CPU: what TensorFloat-32 loses is not what is asked here.
    torch.backends.cuda.matmul.allow_tf32 = False
    return named or "cuda:0"


@pytest.fixture(scope="module")
def catalog(tiny_catalog: Path) -> Catalog:
    return load_catalog(tiny_catalog)


def test_probe_records(catalog: Catalog, device: str) -> None:
    task = catalog.tasks[0]
    records = []
    for place in ("cpu", device):
        model, tokenizer = load_model(resolve(catalog.checkpoints[0]), device=place)
        prompts = read_prompts(task.probes, limit=task.probe_settings.count)
        records.append(record_probes(model, tokenizer, prompts, settings=task.probe_settings, device=place))
    there, here = records
    assert torch.equal(there.tokens, here.tokens)
    # Numbers are kept in float16: half a unit in its last place, and what the order of float32 sums changes.
    for name in ("hidden", "attention"):
        torch.testing.assert_close(getattr(here, name), getattr(there, name), rtol=2e-3, atol=2e-3)
    for name in ("nll", "entropy", "last_entropy"):
        torch.testing.assert_close(getattr(here, name), getattr(there, name), rtol=1e-4, atol=1e-4)


def test_weight_pass(catalog: Catalog, device: str) -> None:
    ids = catalog.checkpoint_ids[:3]
    folders = {id: open_checkpoint(resolve(catalog.checkpoint(id)), name=id) for id in ids}
    base = open_checkpoint(resolve(catalog.base), name=catalog.base.id)
    pairs = [(ids[0], ids[1]), (ids[1], ids[2])]
    there, here = (
        weight_gram(folders, base, pairs, base_id=catalog.base.id, device=place).sort("checkpoint", "other", "tensor")
        for place in ("cpu", device)
    )
    numbers = [name for name, kind in there.schema.items() if kind == pl.Float64]
    assert numbers
    assert here.drop(numbers).equals(there.drop(numbers))
    for name in numbers:  # float64 sums of the same float32 products in another order
        torch.testing.assert_close(here[name].to_torch(), there[name].to_torch(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("action", PLANS)
def test_merges(catalog: Catalog, device: str, action: str, tmp_path: Path) -> None:
    a, b = catalog.checkpoint_ids[:2]
    plan = plan_of([a, b], [action])
    folders = {id: resolve(catalog.checkpoint(id)) for id in (a, b)}
    merged = []
    for name, place in (("there", "cpu"), ("here", device)):
        execute_plan(plan, folders, tmp_path / name, base=resolve(catalog.base), device=place)
        merged.append(load_file(tmp_path / name / "model.safetensors"))
    there, here = merged
    assert there.keys() == here.keys()
    for name, wanted in there.items():
        torch.testing.assert_close(here[name], wanted, rtol=1e-5, atol=1e-7)


def test_scores(catalog: Catalog, device: str) -> None:
    task = catalog.tasks[0]
    there, here = (evaluate(resolve(catalog.checkpoints[0]), task, device=place) for place in ("cpu", device))
    assert here.drop("utility", "stderr").equals(there.drop("utility", "stderr"))
    # Greedy choices between nearly equal tokens may fall the other way: at most one item of each set.
    for wanted, found, n in zip(there["utility"], here["utility"], there["n"], strict=True):
        assert abs(found - wanted) <= 1.0 / n + 1e-4
