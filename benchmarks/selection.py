"""What selecting costs against searching: features and prediction of a new pair, against merging and evaluating it.

    python benchmarks/selection.py [--json] [--catalog demo/catalog.yaml] [--data data] [--pairs 4]

Both sides run in this process on one torch thread, alternating; figures are medians.

Selecting counts: reading the cached probe records, KL and cosines, reading the checkpoints and the base for the inner
products, building the feature rows, and the selector's prediction for every action, on the first checkpoint's task.
It is measured in the two ways in which new pairs come. *Arrival*: a checkpoint joins the catalog and brings a pair
with each one that is there; all of them in one go, as the pipeline does it, divided by their number. *Alone*: one
pair by itself, where the fixed cost of some seventy small data-frame operations is most of it. The probe records are
those that are cached once per checkpoint and task (as in the paper); what recording them costs is measured apart, and
given once shared by all pairs of the new checkpoint and once charged to one pair alone.

Searching counts: reading both checkpoints and the base, and for every action of the extended set the merge in memory
and lm-eval on both item sets of the same task, in a live model whose task objects and requests exist. That is the
fastest form of search that this project has: no model is loaded and nothing is written per merge.

Exit code 1 if selecting a pair of an arriving checkpoint is less than 20 times cheaper than searching.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from simmerge_core.analysis import selector_folder
from simmerge_core.catalog import Catalog, load_catalog
from simmerge_core.checkpoints import CheckpointFolder, fingerprint, load_model, manifest, open_checkpoint, resolve
from simmerge_core.errors import SimMergeError
from simmerge_core.evaluation import Scorer
from simmerge_core.features import pairwise_features
from simmerge_core.merging import load_weights, merge_tensors
from simmerge_core.plans import Plan
from simmerge_core.probes import ProbeRecord, probe_key, read_prompts, record_probes
from simmerge_core.selector import Selector
from simmerge_core.similarity import functional_many, self_signals, weight_gram
from simmerge_core.tables import DataRoot

LIMIT = 20.0


class Pairs:
    """A checkpoint with one or more others on its own task, timed on both sides."""

    def __init__(self, bench: Bench, a: str, others: Sequence[str]) -> None:
        self.bench, self.a, self.others = bench, a, tuple(others)
        self.pairs = [(a, b) for b in self.others]
        self.task = bench.catalog.task(bench.catalog.domains[a])

    def select(self) -> None:
        """From cached probe records and weights to a predicted utility per pair and action."""
        bench, base = self.bench, self.bench.catalog.base.id
        ids = (self.a, *self.others)
        records = {c: ProbeRecord.load(bench.record_path(c, self.task.id)) for c in ids}
        alone = [self_signals(record, checkpoint=c) for c, record in records.items()]
        outputs = pl.concat([functional_many(records, self.pairs), *alone])
        folders = {c: bench.open(c) for c in ids}
        gram = weight_gram(folders, bench.open(base), self.pairs, fingerprints=bench.prints)
        rows = pairwise_features(
            outputs,
            gram,
            manifests=bench.manifests,
            pairs=self.pairs,
            probe_key=bench.probe_keys[self.task.id],
            base=base,
        )
        bench.selector.predict(rows.with_columns(pl.lit(self.task.id).alias("task")))

    def search(self) -> None:
        """Every action on the first pair, merged in memory and scored."""
        bench, (a, b) = self.bench, self.pairs[0]
        weights = {c: load_weights(bench.path(c)) for c in (a, b)}
        base = load_weights(bench.path(bench.catalog.base.id))
        for action in bench.actions:
            merged = merge_tensors(Plan((a, b), (action,)), weights, base=base)
            bench.scorer.load(merged)
            bench.scorer.score(self.task)


class Bench:
    """Everything that exists before a pair is looked at."""

    def __init__(self, catalog: Catalog, data: DataRoot, scratch: Path) -> None:
        self.catalog, self.scratch = catalog, scratch
        self.actions = catalog.actions("extended")
        self.selector = Selector.load(selector_folder(data, "extended"))
        model, tokenizer = load_model(self.path(catalog.base.id))
        self.scorer = Scorer(catalog.tasks, model, tokenizer)
        for task in catalog.tasks:
            self.scorer.score(task)  # builds task objects and requests, and warms the model
        self.probe_keys = {
            t.id: probe_key(read_prompts(t.probes, limit=t.probe_settings.count), t.probe_settings)
            for t in catalog.tasks
        }
        self.prints: dict[str, str] = {}
        self.manifests = pl.DataFrame()

    def path(self, id: str) -> Path:
        return resolve(self.catalog.checkpoint(id))

    def open(self, id: str) -> CheckpointFolder:
        return open_checkpoint(self.path(id), name=id)

    def record_path(self, id: str, task: str) -> Path:
        return self.scratch / f"{id}-{task}.safetensors"

    def prepare(self, ids: set[str], tasks: set[str]) -> list[float]:
        """What is made once per checkpoint; seconds per checkpoint and task of recording its probes."""
        base = self.catalog.base.id
        rows = []
        for id in sorted({*ids, base}):
            folder = self.open(id)
            self.prints[id] = fingerprint(folder)
            domain = self.catalog.checkpoint(id).domain
            row = manifest(folder, checkpoint=id, domain=domain, base=base, fingerprint=self.prints[id])
            rows.append(row.with_columns(pl.lit(id).alias("checkpoint")))
        self.manifests = pl.concat(rows)
        taken = []
        for id in sorted(ids):
            model, tokenizer = load_model(self.path(id), attn_implementation="eager")
            for task in (self.catalog.task(t) for t in sorted(tasks)):
                start = time.perf_counter()
                prompts = read_prompts(task.probes, limit=task.probe_settings.count)
                record = record_probes(model, tokenizer, prompts, settings=task.probe_settings)
                place = self.record_path(id, task.id)
                record.save(place, fingerprint=self.prints[id], probe_key=self.probe_keys[task.id])
                taken.append(time.perf_counter() - start)
        return taken


def others_of(catalog: Catalog, a: str) -> list[str]:
    """Checkpoints of other domains first, then the rest: a's partners."""
    domains = catalog.domains
    return sorted((c for c in domains if c != a), key=lambda c: (domains[c] == domains[a], c))


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(catalog: Catalog, data: DataRoot, *, count: int, scratch: Path) -> dict[str, Any]:
    """Seconds and ratios."""
    bench = Bench(catalog, data, scratch)
    ids = list(catalog.checkpoint_ids)
    arriving = ids[:: max(1, len(ids) // count)][:count]
    probing = bench.prepare(set(ids), {catalog.domains[a] for a in arriving})
    arrivals = [Pairs(bench, a, others_of(catalog, a)) for a in arriving]
    single = [Pairs(bench, a, others_of(catalog, a)[:1]) for a in arriving]
    for warm in (arrivals[0].select, single[0].select, single[0].search):
        warm()
    partners = len(ids) - 1
    times = [
        (timed(m.select) / partners, timed(s.select), timed(s.search)) for m, s in zip(arrivals, single, strict=True)
    ]
    arrival, alone, search = (statistics.median(side) for side in zip(*times, strict=True))
    probe = statistics.median(probing)
    return {
        "checkpoints": len(ids),
        "pairs_of_an_arrival": partners,
        "measured": len(times),
        "actions": [str(action) for action in bench.actions],
        "items_per_evaluation": {t.id: [b.documents for b in t.benchmarks] for t in catalog.tasks},
        "seconds_select_arrival": arrival,
        "seconds_select_alone": alone,
        "seconds_search": search,
        "seconds_probe_recording": probe,
        "ratio_arrival": statistics.median(s / m for m, _, s in times),
        "ratio_alone": statistics.median(s / a for _, a, s in times),
        "ratio_arrival_with_probes_shared": search / (arrival + probe / partners),
        "ratio_alone_with_probes_charged": search / (alone + probe),
        "limit": LIMIT,
        "torch_threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def main() -> int:
    """Measure and print."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.add_argument("--catalog", default=os.environ.get("SIMMERGE_CATALOG", "demo/catalog.yaml"))
    parser.add_argument("--data", default=os.environ.get("SIMMERGE_DATA", "data"))
    parser.add_argument("--pairs", type=int, default=4, help="how many are measured")
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="simmerge-bench-") as scratch:
            result = measure(
                load_catalog(given.catalog), DataRoot(given.data), count=given.pairs, scratch=Path(scratch)
            )
    except SimMergeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"select, arrival  {result['seconds_select_arrival'] * 1e3:9.1f} ms a pair")
        print(f"select, alone    {result['seconds_select_alone'] * 1e3:9.1f} ms")
        print(f"search one pair  {result['seconds_search'] * 1e3:9.1f} ms, {len(result['actions'])} actions")
        print(f"ratio, arrival {result['ratio_arrival']:.1f} (limit {LIMIT:.0f}), alone {result['ratio_alone']:.1f}")
        print(f"  arrival with the new checkpoint's probes  {result['ratio_arrival_with_probes_shared']:.1f}")
        print(f"  alone with them charged to the one pair   {result['ratio_alone_with_probes_charged']:.1f}")
    return int(result["ratio_arrival"] < LIMIT)


if __name__ == "__main__":
    sys.exit(main())
