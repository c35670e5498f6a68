"""What a checkpoint costs on a device: its probes on a task, its pass over the weights, a merge, its scores.

The same work is done on the CPU and on `--device`, after a first time that is not counted; seconds are medians, GB/s
are bytes of weights read over seconds. Of the demo catalog by default; `--catalog` takes any other.

    python benchmarks/devices.py --device cuda:0 --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median over `repeats` calls, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def measure(path: Path, device: str, repeats: int) -> dict[str, float]:
    """Seconds and GB/s of each kind of work for one checkpoint (two for the weight pass and the merge)."""
    import torch

    from simmerge_core.catalog import load_catalog
    from simmerge_core.checkpoints import load_model, open_checkpoint, resolve
    from simmerge_core.evaluation import evaluate
    from simmerge_core.merging import execute_plan
    from simmerge_core.plans import plan_of
    from simmerge_core.probes import read_prompts, record_probes
    from simmerge_core.similarity import weight_gram

    catalog = load_catalog(path)
    task, (a, b) = catalog.tasks[0], catalog.checkpoint_ids[:2]
    places = {id: resolve(catalog.checkpoint(id)) for id in (a, b)}
    size = sum(file.stat().st_size for file in places[a].glob("*.safetensors")) / 1e9
    prompts = read_prompts(task.probes, limit=task.probe_settings.count)
    model, tokenizer = load_model(places[a], device=device)
    folders = {id: open_checkpoint(place, name=id) for id, place in places.items()}
    base = open_checkpoint(resolve(catalog.base), name=catalog.base.id)
    prints = dict.fromkeys((a, b, catalog.base.id), "0" * 64)  # hashing is another pass over the files

    def synchronized(call: Callable[[], Any]) -> Callable[[], Any]:
        def done() -> None:
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()

        return done

    def merge(action: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "merged"
            execute_plan(plan_of([a, b], [action]), places, out, base=resolve(catalog.base), device=device)

    work: dict[str, Callable[[], Any]] = {
        "load": lambda: load_model(places[a], device=device),
        "probes": lambda: record_probes(model, tokenizer, prompts, settings=task.probe_settings, device=device),
        "scores": lambda: evaluate(model, task, tokenizer=tokenizer, device=device),
        "weight_pass": lambda: weight_gram(
            folders, base, [(a, b)], base_id=catalog.base.id, fingerprints=prints, device=device
        ),
        "merge_linear": lambda: merge("linear"),
        "merge_ties": lambda: merge("ties_task_vector@0.5"),
    }
    found = {"checkpoint_gb": round(size, 4)}
    for name, call in work.items():
        seconds = median_seconds(synchronized(call), repeats)
        found[f"{name}_seconds"] = round(seconds, 4)
        read = {"load": 1, "weight_pass": 3, "merge_linear": 2, "merge_ties": 3}.get(name)
        if read:
            found[f"{name}_gb_per_second"] = round(read * size / seconds, 3)
    return found


def main() -> None:
    """Measure the CPU and the device, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--catalog", type=Path, default=ROOT / "demo" / "catalog.yaml")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from simmerge_core.devices import check_device

    check_device(given.device)
    found = {
        name: measure(given.catalog.absolute(), name, given.repeats) for name in dict.fromkeys(("cpu", given.device))
    }
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for name in next(iter(found.values())):
        print(f"{name:32}", *(f"{row[name]:12.4f}" for row in found.values()))


if __name__ == "__main__":
    main()
