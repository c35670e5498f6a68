"""A family of four small checkpoints around a base, with synthetic probe records, and its tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from simmerge_core.catalog import ProbeSettings
from simmerge_core.checkpoints import fingerprint, manifest, open_checkpoint
from simmerge_core.probes import ProbeRecord
from simmerge_core.similarity import functional_many, self_signals, weight_gram

LENGTHS = (3, 1, 5, 3)
LAYERS = 3


@dataclass(frozen=True)
class Family:
    """Raw material (weights and records, from which a test computes what it expects) and the tables made of it."""

    base: dict[str, Tensor]
    weights: dict[str, dict[str, Tensor]]
    records: dict[str, ProbeRecord]
    pairs: list[tuple[str, str]]
    functional: pl.DataFrame
    gram: pl.DataFrame
    manifests: pl.DataFrame


def _shapes(tied: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (7, 6), "model.norm.weight": (6,)}
    for layer in range(LAYERS):
        shapes[f"model.layers.{layer}.self_attn.q_proj.weight"] = (6, 6)
        shapes[f"model.layers.{layer}.mlp.up_proj.weight"] = (9, 6)
        shapes[f"model.layers.{layer}.input_layernorm.weight"] = (6,)
    return shapes if tied else {**shapes, "lm_head.weight": (7, 6)}


def _record(seed: int, content: str) -> ProbeRecord:
    generator = torch.Generator().manual_seed(1000 + seed)
    rows, packed = sum(LENGTHS), sum(n * (n + 1) // 2 for n in LENGTHS)
    signals = torch.rand((3, len(LENGTHS)), generator=generator, dtype=torch.float64)
    return ProbeRecord(
        settings=ProbeSettings(count=len(LENGTHS)),
        layers=tuple(range(LAYERS)),
        vocabulary=11,
        tokens=torch.arange(rows, dtype=torch.int32),
        lengths=torch.tensor(LENGTHS, dtype=torch.int32),
        hidden=torch.randn((LAYERS, rows, 4), generator=generator),
        attention=torch.rand((LAYERS, 2, packed), generator=generator),
        logprobs=torch.log_softmax(torch.randn((rows, 11), generator=generator), -1),
        nll=signals[0],
        entropy=signals[1],
        last_entropy=signals[2],
        fingerprint=content,
        probe_key="key",
    )


@pytest.fixture
def make_family(tmp_path: Path) -> Callable[..., Family]:
    """make_family(tied=False, scale=1.0, twins=False, frozen=()): twins makes m-1 a copy of m-0."""

    def make(*, tied: bool = False, scale: float = 1.0, twins: bool = False, frozen: tuple[str, ...] = ()) -> Family:
        shapes = _shapes(tied)

        def random(seed: int) -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(seed)
            return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}

        base = random(0)
        seeds = {"m-0": 1, "m-1": 1 if twins else 2, "m-2": 3, "m-3": 4}
        weights = {
            name: {
                n: base[n].clone() if any(f in n for f in frozen) else base[n] + 0.2 * seed * random(seed)[n]
                for n in base
            }
            for name, seed in seeds.items()
        }
        config = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": LAYERS,
            "hidden_size": 6, "vocab_size": 7, "tie_word_embeddings": tied,
        }  # fmt: skip
        place = tmp_path / f"family-{len(list(tmp_path.iterdir()))}"
        folders = {}
        for name, tensors in {**weights, "base": base}.items():
            (place / name).mkdir(parents=True)
            (place / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
            save_file(tensors, place / name / "model.safetensors")
            folders[name] = open_checkpoint(place / name, name=name)
        root = folders.pop("base")
        content = {name: fingerprint(folder) for name, folder in {**folders, "base": root}.items()}
        records = {name: _record(seed, content[name]) for name, seed in seeds.items()}
        names = list(weights)
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        return Family(
            base=base,
            weights=weights,
            records=records,
            pairs=pairs,
            functional=pl.concat(
                [functional_many(records, pairs), *(self_signals(r, checkpoint=n) for n, r in records.items())]
            ),
            gram=weight_gram(folders, root, pairs, fingerprints=content),
            manifests=pl.concat(
                manifest(folder, checkpoint=name, domain=f"task-{name}", base="base", fingerprint=content[name])
                for name, folder in folders.items()
            ),
        )

    return make


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
