"""What the README shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from cli_results import train_selector, write_features
from cli_world import World

from simmerge_cli.app import _COMMANDS
from simmerge_core.catalog import Catalog

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_python_example_runs(world: World) -> None:
    (world.folder / "demo").symlink_to(world.catalog.parent)
    write_features(world.data, ("math-01", "code-01", "instruct-01", "math-02", "code-02", "instruct-02"), "math")
    train_selector(world.data)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(example, {})
    assert (world.folder / "merged" / "model.safetensors").is_file()


def test_catalog_example_is_valid() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    catalog = Catalog.model_validate(yaml.safe_load(example))
    assert catalog.task("math").metric == "exact_match,strict-match"


def test_every_command_is_described() -> None:
    assert set(re.findall(r"^\| `simmerge (\w+)", README, re.M)) == set(_COMMANDS)


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parents[2]
    for page in (root / "README.md", root / "ARCHITECTURE.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
