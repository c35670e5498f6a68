"""What similarity costs: probes per checkpoint, functional and features per pair, one Gram pass for N checkpoints.

    python benchmarks/similarity.py [--json] [--checkpoints 16] [--width 64]

Random Llama checkpoints of the demo's shape are written to a temporary folder. Every figure is measured in this
one run; compare ratios, not seconds, between machines.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch

from simmerge_core.checkpoints import CheckpointFolder, manifest, open_checkpoint
from simmerge_core.demo.tokenizer import VOCABULARY, write_tokenizer
from simmerge_core.features import pairwise_features
from simmerge_core.probes import record_probes
from simmerge_core.similarity import functional, functional_many, self_signals, structural, weight_gram

PROMPTS = [f"{n * 37 % 91}+{n * n % 50}=" + "max 3,55,8="[: n % 12] for n in range(64)]


def _seconds(work: Callable[[], Any], *, repeat: int = 3) -> float:
    """Median wall time of `repeat` calls after one unmeasured call."""
    work()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _write_family(folder: Path, *, checkpoints: int, width: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    base = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ["base", *(f"m-{n}" for n in range(checkpoints))]:
        if name != "base":
            model.load_state_dict({k: v + 0.01 * torch.randn_like(v) for k, v in base.items()})
        model.save_pretrained(folder / name)
        write_tokenizer(folder / name, positions=128)


def measure(*, checkpoints: int, width: int) -> dict[str, Any]:
    """All figures; seconds are medians."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = 0
    original = CheckpointFolder.read_chunk

    def counted(self: CheckpointFolder, name: str, start: int, stop: int) -> torch.Tensor:
        nonlocal read
        values = original(self, name, start, stop)
        read += values.numel() * values.element_size()
        return values

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write_family(folder, checkpoints=checkpoints, width=width)
        names = [f"m-{n}" for n in range(checkpoints)]
        folders = {name: open_checkpoint(folder / name, name=name) for name in names}
        base = open_checkpoint(folder / "base", name="base")
        content = {name: name for name in [*names, "base"]}
        tokenizer = AutoTokenizer.from_pretrained(folder / "base")
        models = {name: AutoModelForCausalLM.from_pretrained(folder / name) for name in names}
        records = {name: record_probes(model, tokenizer, PROMPTS) for name, model in models.items()}
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]

        gram_cost = []
        CheckpointFolder.read_chunk = counted  # type: ignore[method-assign]
        sizes = [n for n in (2, 4, 8, 16, 32) if n <= checkpoints]
        for size in sizes:
            chosen = {name: folders[name] for name in names[:size]}
            some = [pair for pair in pairs if set(pair) <= set(chosen)]
            read = 0
            gram = weight_gram(chosen, base, some, fingerprints=content)
            once = read
            seconds = _seconds(partial(weight_gram, chosen, base, some, fingerprints=content))
            gram_cost.append(
                {
                    "checkpoints": size,
                    "pairs": len(some),
                    "seconds": seconds,
                    "bytes_read": once,
                    "reads_of_each_byte": once / (base.bytes + sum(f.bytes for f in chosen.values())),
                    "bytes_pair_by_pair_over_bytes_read": len(some) * 3 * base.bytes / once,
                }
            )
        CheckpointFolder.read_chunk = original  # type: ignore[method-assign]
        gram = weight_gram(folders, base, pairs, fingerprints=content)
        manifests = pl.concat(
            manifest(f, checkpoint=n, domain="math", base="base", fingerprint=n) for n, f in folders.items()
        )
        all_functional = pl.concat(
            [functional_many(records, pairs), *(self_signals(r, checkpoint=n) for n, r in records.items())]
        )

        def features(some: list[tuple[str, str]]) -> pl.DataFrame:
            return pairwise_features(all_functional, gram, manifests=manifests, pairs=some, probe_key="key")

        model = models[names[0]]
        a, b = names[:2]
        one = {
            "probes_of_one_checkpoint": _seconds(lambda: record_probes(model, tokenizer, PROMPTS)),
            "functional_one_pair": _seconds(lambda: functional(records[a], records[b], a_id=a, b_id=b)),
            "gram_one_pair": _seconds(
                lambda: weight_gram({n: folders[n] for n in (a, b)}, base, [(a, b)], fingerprints=content)
            ),
            "features_one_pair": _seconds(lambda: features([(a, b)])),
        }
        everything = {
            "functional": _seconds(lambda: functional_many(records, pairs)) / len(pairs),
            "structural": _seconds(lambda: structural(gram, pairs)) / len(pairs),
            "features": _seconds(lambda: features(pairs)) / len(pairs),
        }
    return {
        "parameters": base.parameters,
        "prompts": len(PROMPTS),
        "probe_record_bytes": records[a].bytes,
        "seconds_alone": one,
        "pairs": len(pairs),
        "seconds_per_pair_of_all": everything,
        "functional_alone_over_batched": one["functional_one_pair"] / everything["functional"],
        "weight_gram": gram_cost,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--checkpoints", type=int, default=16)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    result = measure(checkpoints=options.checkpoints, width=options.width)
    if options.json:
        json.dump(result, sys.stdout, indent=2)
        print()
        return
    print(f"{result['parameters']:,} parameters; {result['probe_record_bytes']:,} bytes a probe record")
    for name, seconds in result["seconds_alone"].items():
        print(f"  {name:28} {1e3 * seconds:8.1f} ms")
    for name, seconds in result["seconds_per_pair_of_all"].items():
        print(f"  {name + ', of ' + str(result['pairs']) + ' pairs':28} {1e3 * seconds:8.2f} ms a pair")
    print("  one Gram pass:  checkpoints  pairs  seconds  reads of each byte  pair by pair would read")
    for row in result["weight_gram"]:
        print(
            f"  {row['checkpoints']:26} {row['pairs']:6} {row['seconds']:8.3f} {row['reads_of_each_byte']:19.2f} "
            f"{row['bytes_pair_by_pair_over_bytes_read']:16.1f} times as much"
        )


if __name__ == "__main__":
    main()
