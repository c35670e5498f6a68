"""Arrows run downwards only: command line, then pipeline, then core."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ABOVE = {
    "simmerge_core": {"dagster", "simmerge_pipeline", "simmerge_cli", "typer"},
    "simmerge_pipeline": {"simmerge_cli", "typer"},
}


def imported(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(ABOVE))
def test_no_layer_imports_one_above_it(package: str) -> None:
    files = sorted((PROJECT / package).rglob("*.py"))
    assert files
    wrong = {str(f.relative_to(PROJECT)): sorted(imported(f) & ABOVE[package]) for f in files}
    assert {file: names for file, names in wrong.items() if names} == {}


def test_the_pipeline_holds_no_mathematics() -> None:
    files = sorted((PROJECT / "simmerge_pipeline").rglob("*.py"))
    heavy = {"torch", "numpy", "sklearn", "transformers", "lm_eval", "matplotlib"}
    assert {f.name: imported(f) & heavy for f in files if imported(f) & heavy} == {}
