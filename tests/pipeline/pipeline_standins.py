"""The bodies of the assets over pairs, with stand-ins for models: tiny weights, random probe records, hashed scores."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from simmerge_core.catalog import Catalog, ProbeSettings, load_catalog
from simmerge_core.checkpoints import fingerprint, manifest, open_checkpoint
from simmerge_core.labels.pairs import fraction
from simmerge_core.probes import ProbeRecord, probe_path
from simmerge_core.tables import CHECKPOINTS, MERGE_LABELS, DataRoot, Table
from simmerge_pipeline.contents import task_probe_key
from simmerge_pipeline.defs.labels import assets as labels
from simmerge_pipeline.defs.similarity import assets as similarity
from simmerge_pipeline.partitions import CHECKPOINT, CHECKPOINT_TASK, cell

LENGTHS, LAYERS = (3, 2), 1
SHAPES = {
    "model.embed_tokens.weight": (7, 6),
    "model.layers.0.self_attn.q_proj.weight": (6, 6),
    "model.layers.0.mlp.up_proj.weight": (9, 6),
    "model.layers.0.input_layernorm.weight": (6,),
    "model.norm.weight": (6,),
    "lm_head.weight": (7, 6),
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": LAYERS,
    "hidden_size": 6,
    "vocab_size": 7,
    "tie_word_embeddings": False,
}
BODIES = {
    name: asset.op.compute_fn.decorated_fn  # type: ignore[attr-defined]
    for name, asset in {
        "weight_gram": similarity.weight_gram,
        "functional_similarity": similarity.functional_similarity,
        "pairwise_features": similarity.pairwise_features,
        "merge_labels": labels.merge_labels,
    }.items()
}
READS = {
    "checkpoints": (),
    "probe_activations": ("checkpoints",),
    "weight_gram": ("checkpoints",),
    "functional_similarity": ("probe_activations",),
    "pairwise_features": ("functional_similarity", "weight_gram"),
    "merge_labels": ("pairwise_features",),
}
"""Assets in the graph's order, with what each reads by lineage."""


class Killed(BaseException):
    """The process of a step ends here."""


@dataclass
class Fault:
    """What happens at the n-th file that a step writes: it cannot be written, or the process ends after it."""

    at: int
    kill: bool


@dataclass
class _Step:
    """A step under way: what it may write, what befalls it, and what runs at once with it."""

    asset: str
    keys: list[str]
    fault: Fault | None
    beside: Callable[[], object] | None
    files: int = 0


@dataclass
class Standins:
    """A data root, the catalog as it is at the moment, and what Dagster has been told."""

    folder: Path
    full: Catalog
    root: DataRoot
    present: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    told: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in READS})
    _under_way: list[_Step] = field(default_factory=list)

    @property
    def catalog(self) -> Catalog:
        entries = tuple(entry for entry in self.full.checkpoints if entry.id in self.present)
        tasks = tuple(task for task in self.full.tasks if task.id in self.tasks)
        return self.full.model_copy(update={"checkpoints": entries, "tasks": tasks})

    def keys(self, asset: str) -> list[str]:
        """Partitions that the catalog declares, in its order."""
        ids = ["base", *self.catalog.checkpoint_ids]
        if asset in ("checkpoints", "weight_gram"):
            return ids
        return [f"{c}|{t}" for c in ids for t in self.catalog.task_ids]

    def ready(self, asset: str) -> list[str]:
        """Missing partitions whose inputs are there: what the automation asks for."""
        return [key for key in self.keys(asset) if key not in self.told[asset] and self.has_inputs(asset, key)]

    def has_inputs(self, asset: str, key: str) -> bool:
        """Whether everything that a partition reads by lineage has been told."""
        return all(self.told[parent] & {key, key.partition("|")[0]} for parent in READS[asset])

    def run(
        self,
        asset: str,
        keys: list[str],
        *,
        fault: Fault | None = None,
        beside: Callable[[], object] | None = None,
    ) -> None:
        """One step over partitions; `beside` runs when it has read everything and has written nothing yet."""
        if not keys:
            return
        step = _Step(asset, keys, fault, beside)
        self._under_way.append(step)
        try:
            self.told[asset] |= set(self._body(asset, keys))
        except (Killed, OSError):
            pass  # nothing that it had written was told
        finally:
            self._under_way.pop()

    def _body(self, asset: str, keys: list[str]) -> list[str]:
        if asset == "checkpoints":
            for key in keys:
                self._manifest(key)
            return keys
        if asset == "probe_activations":
            for key in keys:
                self._record(*cell(key))
            return keys
        context = SimpleNamespace(
            partition_keys=keys,
            instance=SimpleNamespace(add_run_tags=lambda run, tags: None),
            run=SimpleNamespace(run_id="run"),
            log=logging.getLogger("standins"),
            add_asset_metadata=lambda metadata, partition_key: None,
            asset_key=dg.AssetKey(asset),
            assets_def=SimpleNamespace(partitions_def=CHECKPOINT if asset == "weight_gram" else CHECKPOINT_TASK),
        )
        given: dict[str, Any] = {
            "catalog": SimpleNamespace(load=lambda: self.catalog),
            "data": SimpleNamespace(root=self.root),
        }
        if asset != "functional_similarity":
            given["compute"] = SimpleNamespace(device="cpu", processes=1)
        told: list[str] = []
        try:
            for event in BODIES[asset](context, **given):
                if isinstance(event, dg.MaterializeResult):
                    told = keys
                elif isinstance(event, dg.AssetMaterialization):
                    told.append(str(event.partition))
        except dg.Failure:
            pass  # those that were written have been told before
        return told

    def _manifest(self, id: str) -> None:
        entry = self.full.checkpoint(id)
        assert entry.path is not None
        folder = open_checkpoint(entry.path, name=id)
        row = manifest(folder, checkpoint=id, domain=entry.domain, base="base", fingerprint=fingerprint(folder))
        self.root.write(CHECKPOINTS, row, checkpoint=id)

    def _record(self, checkpoint: str, task: str) -> None:
        content = self.root.read(CHECKPOINTS, checkpoint=checkpoint)["fingerprint"].item()
        record(f"{checkpoint} {task}").save(
            probe_path(self.root, checkpoint, task), fingerprint=content, probe_key=task_probe_key(self.catalog, task)
        )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Every write goes through `_write`, which lets faults and other steps happen, and nothing else be written."""
        original = DataRoot.write

        def write(root: DataRoot, table: Table, frame: pl.DataFrame, **keys: str) -> Path:
            return self._write(original, root, table, frame, **keys)

        patch = pytest.MonkeyPatch()
        patch.setattr(DataRoot, "write", write)
        patch.setattr(labels, "label_pairs", scored)
        patch.setattr(labels, "refuse_unsound_tasks", lambda *given: None)
        patch.setattr(similarity, "similarity_pictures", lambda rows: {})
        patch.setattr("simmerge_pipeline.stamps.task_key", lambda task: task.id)
        try:
            yield
        finally:
            patch.undo()

    def _write(self, original: Any, root: DataRoot, table: Table, frame: pl.DataFrame, **keys: str) -> Path:
        step = self._under_way[-1]
        assert table.name == step.asset
        assert "|".join(keys.values()) in step.keys  # nobody else's file
        if step.beside is not None:
            beside, step.beside = step.beside, None
            beside()
        step.files += 1
        if step.fault is not None and step.files == step.fault.at and not step.fault.kill:
            raise OSError(28, "No space left on device")
        path: Path = original(root, table, frame, **keys)
        if step.fault is not None and step.files == step.fault.at:
            raise Killed
        return path


def seeded(*parts: str) -> torch.Generator:
    """A generator of its own for every name."""
    return torch.Generator().manual_seed(int(fraction(*parts) * 2**40))


def record(name: str) -> ProbeRecord:
    """A probe record of random numbers."""
    generator, rows = seeded("record", name), sum(LENGTHS)
    signals = torch.rand((3, len(LENGTHS)), generator=generator, dtype=torch.float64)
    return ProbeRecord(
        settings=ProbeSettings(count=len(LENGTHS)),
        layers=tuple(range(LAYERS)),
        vocabulary=5,
        tokens=torch.arange(rows, dtype=torch.int32),
        lengths=torch.tensor(LENGTHS, dtype=torch.int32),
        hidden=torch.randn((LAYERS, rows, 4), generator=generator),
        attention=torch.rand((LAYERS, 2, sum(n * (n + 1) // 2 for n in LENGTHS)), generator=generator),
        logprobs=torch.log_softmax(torch.randn((rows, 5), generator=generator), -1),
        nll=signals[0],
        entropy=signals[1],
        last_entropy=signals[2],
        fingerprint="",
        probe_key="",
    )


def scored(
    rows: pl.DataFrame, actions: Iterable[str], catalog: Catalog, *, fingerprints: dict[str, str], **given: object
) -> pl.DataFrame:
    """Rows of `merge_labels` with `task`, whose utility is a hash of what was merged."""
    found = [
        {
            "a": a, "b": b, "kind": kind, "action": action, "operator": action.split("@")[0], "alpha": 0.5,
            "split": split, "task": task,
            "a_fingerprint": fingerprints[a], "b_fingerprint": fingerprints[b], "recipe_key": f"{a}+{b}",
            "benchmark": "some", "metric": "acc", "item_set": item_set, "seed": 0,
            "utility": fraction(a, b, task, action, item_set), "stderr": None, "n": 1, "evaluation_key": "key",
        }
        for a, b, task, kind, split in rows.select("a", "b", "task", "kind", "split").iter_rows()
        for action in actions
        for item_set in ("A", "B")
    ]  # fmt: skip
    return pl.DataFrame(found, schema={**MERGE_LABELS.schema, "task": pl.String})


def made(folder: Path, checkpoints: dict[str, str], tasks: tuple[str, ...], **settings: object) -> Catalog:
    """A catalog of checkpoints (domain by id) with tiny weights, and of tasks with two prompts each."""
    base = {name: torch.randn(shape, generator=seeded("base", name)) for name, shape in SHAPES.items()}
    for id in ("base", *checkpoints):
        place = folder / "checkpoints" / id
        place.mkdir(parents=True)
        moved = 0.0 if id == "base" else 0.3
        tensors = {n: w + moved * torch.randn(w.shape, generator=seeded(id, n)) for n, w in base.items()}
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
        (place / "config.json").write_text(json.dumps(CONFIG))
    for task in tasks:
        (folder / f"{task}.jsonl").write_text(f'{{"prompt": "{task} 1"}}\n{{"prompt": "{task} 2"}}\n')
    content = {
        "version": 1,
        "base": {"id": "base", "path": "checkpoints/base"},
        "checkpoints": [{"id": c, "path": f"checkpoints/{c}", "domain": d} for c, d in checkpoints.items()],
        "tasks": [
            {"id": t, "probes": f"{t}.jsonl", "benchmarks": [{"name": "some", "metrics": ["acc"]}]} for t in tasks
        ],
        **settings,
    }
    (folder / "catalog.yaml").write_text(json.dumps(content))
    return load_catalog(folder / "catalog.yaml")
