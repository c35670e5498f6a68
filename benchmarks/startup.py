"""How fast `simmerge merge --help` starts, against a bare interpreter and against importing typer.

    python benchmarks/startup.py [--json]

Each command runs in its own process, alternating, several times after a warm-up; the figure is the median, so that a
busy moment of the machine does not decide. Exit code 1 if the limit is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

LIMIT = 3.0
"""Greatest allowed ratio to `python -c "import typer"`."""

COMMANDS = {
    "python_pass": [sys.executable, "-c", "pass"],
    "import_typer": [sys.executable, "-c", "import typer"],
    "merge_help": [sys.executable, "-m", "simmerge_cli", "merge", "--help"],
    "merge_run_imports": [sys.executable, "-c", "import torch, safetensors"],
}
HEAVY = ("torch", "transformers", "lm_eval", "dagster", "polars", "numpy", "yaml", "sklearn", "datasets")


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def heavy_imports() -> list[str]:
    """Which heavy packages `merge --help` has imported."""
    probe = (
        "import sys, contextlib, io\n"
        "from simmerge_cli.app import app\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): app(['merge', '--help'])\n"
        f"print(*[m for m in {HEAVY!r} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    return found.stdout.split()


def measure(repeats: int) -> dict[str, Any]:
    """Median seconds of every command, and the ratios that count."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(repeats + 1):
        for name, command in COMMANDS.items():
            taken = seconds(command)
            if number:  # the first round warms the page cache
                times[name].append(taken)
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "seconds": {name: round(value, 4) for name, value in median.items()},
        "ratio_to_import_typer": round(median["merge_help"] / median["import_typer"], 3),
        "ratio_to_python_pass": round(median["merge_help"] / median["python_pass"], 3),
        "ratio_to_importing_torch": round(median["merge_help"] / median["merge_run_imports"], 3),
        "limit": LIMIT,
        # The stricter reading of the limit: three bare interpreters and typer's import on top of one.
        "below_three_passes_plus_typer": median["merge_help"] < 2 * median["python_pass"] + median["import_typer"],
        "heavy_imports": heavy_imports(),
        "repeats": repeats,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    result = measure(given.repeats)
    if given.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result["seconds"].items():
            print(f"{name:18} {value:8.3f} s")
        print(f"merge --help takes {result['ratio_to_import_typer']} × `import typer` (limit {LIMIT})")
        print(f"heavy imports: {', '.join(result['heavy_imports']) or 'none'}")
    return int(result["ratio_to_import_typer"] >= LIMIT or bool(result["heavy_imports"]))


if __name__ == "__main__":
    sys.exit(main())
