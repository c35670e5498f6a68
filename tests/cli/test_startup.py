"""What the command line imports: little to say what it can do, and only torch and safetensors to merge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "transformers",
    "lm_eval",
    "dagster",
    "datasets",
    "polars",
    "numpy",
    "pydantic",
    "yaml",
    "sklearn",
    "rich",
    "fsspec",
    "s3fs",
)


def _imported_by(*arguments: str, folder: Path) -> tuple[set[str], str]:
    """Heavy packages that a fresh process has imported after running a command, and its stdout."""
    code = (
        "import sys, json\n"
        "from simmerge_cli.app import app\n"
        "code = 0\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        f"print(json.dumps([code, [m for m in {HEAVY!r} if m in sys.modules]]), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        check=True,
    )
    status, modules = json.loads(run.stderr.splitlines()[-1])
    assert not status, run.stderr
    return set(modules), run.stdout


@pytest.mark.parametrize("arguments", [("--help",), ("merge", "--help"), ("--version",)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    modules, text = _imported_by(*arguments, folder=tmp_path)
    assert text
    assert modules == set()


def test_merge_of_folders_imports_only_what_merging_needs(tiny_catalog: Path, tmp_path: Path) -> None:
    places = [str(tiny_catalog.parent / "checkpoints" / id) for id in ("math-01", "code-01")]
    modules, out = _imported_by("merge", *places, "-o", "slerp", "--out", "merged", "--json", folder=tmp_path)
    assert json.loads(out)["path"] == "merged"
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    assert "torch" in modules
    assert not modules & {"transformers", "lm_eval", "dagster", "datasets", "polars", "sklearn", "rich"}


def test_importing_the_packages_is_light(tmp_path: Path) -> None:
    packages = (
        "simmerge_core",
        "simmerge_cli",
        *(f"simmerge_core.{p}" for p in ("checkpoints", "operators", "merging")),
    )
    code = f"import sys, {', '.join(packages)}\n"
    code += f"print(*[m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert run.stdout.split() == []
