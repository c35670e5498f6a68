"""Time and memory of streaming merges, as ratios to a plain copy and to loading both checkpoints whole.

    python -m benchmarks.merging [--json] [--megabytes 50 200] [--operator linear --operator slerp]

Every measurement is a process of its own: its wall and CPU time after imports, and its peak resident memory above
what it had after imports. Each is repeated and the least time is taken. Files lie in a temporary folder, in the
page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH = 1024


def write_checkpoint(folder: Path, *, megabytes: int, seed: int) -> None:
    """A Llama-shaped bfloat16 checkpoint of about this size, written with the safetensors library."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    per_layer = 2 * (4 * WIDTH * WIDTH + 3 * WIDTH * 4 * WIDTH)  # bytes
    layers = max(1, round(megabytes * 1e6 / per_layer))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32).bfloat16()

    weights = {
        "model.embed_tokens.weight": normal(512, WIDTH),
        "model.norm.weight": normal(WIDTH),
        "lm_head.weight": normal(512, WIDTH),
    }
    for layer in range(layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weights[f"model.layers.{layer}.self_attn.{name}.weight"] = normal(WIDTH, WIDTH)
        weights[f"model.layers.{layer}.mlp.gate_proj.weight"] = normal(4 * WIDTH, WIDTH)
        weights[f"model.layers.{layer}.mlp.up_proj.weight"] = normal(4 * WIDTH, WIDTH)
        weights[f"model.layers.{layer}.mlp.down_proj.weight"] = normal(WIDTH, 4 * WIDTH)
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "num_hidden_layers": layers,
        "num_attention_heads": 16, "intermediate_size": 4 * WIDTH, "vocab_size": 512, "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def forget_peak() -> int:
    """Let the kernel measure this process's peak afresh, from the resident bytes it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """Greatest resident size since `forget_peak` (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def flush(file: Path) -> None:
    """Write through to the disk, as a merge does before it shows its result."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def measure(kind: str, folder: Path, operator: str) -> dict[str, float]:
    """Run one kind of work in this process; seconds and peak bytes above the state after imports."""
    out = folder / f"out-{kind}"
    if kind == "copy":
        before, start, busy = forget_peak(), time.perf_counter(), time.process_time()
        shutil.copyfile(folder / "a" / "model.safetensors", out)
        flush(out)
    elif kind == "whole":
        import torch
        from safetensors.torch import load_file, save_file

        torch.set_num_threads(1)
        before, start, busy = forget_peak(), time.perf_counter(), time.process_time()
        a, b = (load_file(folder / name / "model.safetensors") for name in ("a", "b"))
        save_file({n: ((a[n].float() + b[n].float()) / 2).bfloat16() for n in a}, out, metadata={"format": "pt"})
        flush(out)
    else:
        import torch

        from simmerge_core.merging import execute_plan
        from simmerge_core.operators import OPERATORS
        from simmerge_core.plans import plan_of

        torch.set_num_threads(1)
        known = {"a": "0" * 64, "b": "1" * 64} if kind == "known" else None
        before, start, busy = forget_peak(), time.perf_counter(), time.process_time()
        execute_plan(
            plan_of(["a", "b"], [operator]),
            {n: folder / n for n in "ab"},
            out,
            base=folder / "base" if OPERATORS[operator].needs_base else None,
            fingerprints=known,
            base_fingerprint="2" * 64 if known else None,
        )
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    after = peak_bytes()
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": float(after - before)}


def in_a_process(kind: str, folder: Path, operator: str, *, repeats: int) -> dict[str, float]:
    """The least time and the greatest memory over repeated processes."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.merging",
        "--measure",
        kind,
        "--folder",
        str(folder),
        "--operator",
        operator,
    ]
    runs = [
        json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
        for _ in range(repeats)
    ]
    least = {key: min(r[key] for r in runs) for key in ("seconds", "cpu_seconds")}
    return {**least, "peak_bytes": max(r["peak_bytes"] for r in runs)}


def compare(megabytes: int, operators: list[str], *, repeats: int) -> dict[str, object]:
    """All measurements at one size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, checkpoint in enumerate(("a", "b", "base")):
            write_checkpoint(folder / checkpoint, megabytes=megabytes, seed=seed)
        size = (folder / "a" / "model.safetensors").stat().st_size
        copy = in_a_process("copy", folder, "linear", repeats=repeats)
        whole = in_a_process("whole", folder, "linear", repeats=repeats)
        result: dict[str, object] = {"checkpoint_bytes": size, "copy": copy, "whole": whole}
        for operator in operators:
            for kind in ("known", "hashed"):
                run = in_a_process(kind, folder, operator, repeats=repeats)
                result[f"{operator}, fingerprints {kind}"] = {
                    **run,
                    "seconds_over_copy": run["seconds"] / copy["seconds"],
                    "seconds_over_whole": run["seconds"] / whole["seconds"],
                    "cpu_over_whole": run["cpu_seconds"] / whole["cpu_seconds"],
                    "peak_over_checkpoint": run["peak_bytes"] / size,
                    "peak_over_whole": run["peak_bytes"] / whole["peak_bytes"],
                }
        return result


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[50, 200], help="sizes of one checkpoint")
    parser.add_argument(
        "--operator", action="append", help="operators to measure; linear, slerp and ties_task_vector by default"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", choices=["copy", "whole", "known", "hashed"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.folder, options.operator[0])))
        return
    operators = options.operator or ["linear", "slerp", "ties_task_vector"]
    results = {str(m): compare(m, operators, repeats=options.repeats) for m in options.megabytes}
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for megabytes, rows in results.items():
        print(f"{megabytes} MB checkpoints")
        for name, row in rows.items():
            if isinstance(row, dict):
                ratios = "".join(f"  {k} {v:.2f}" for k, v in row.items() if "over" in k)
                print(
                    f"  {name:42s} {row['seconds']:7.3f} s  {row['cpu_seconds']:7.3f} s cpu  "
                    f"{row['peak_bytes'] / 1e6:7.1f} MB{ratios}"
                )


if __name__ == "__main__":
    main()
