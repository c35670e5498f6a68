"""A private copy of the tiny catalog to spoil, a data root to leave alone, and the command line in process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from click.testing import Result
from typer.testing import CliRunner

from simmerge_cli.app import app


@dataclass
class World:
    """A catalog, a data root with an earlier result in it, and `simmerge` run on both."""

    folder: Path

    @property
    def catalog(self) -> Path:
        return self.folder / "catalog" / "catalog.yaml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def checkpoint(self, id: str) -> Path:
        return self.catalog.parent / "checkpoints" / id

    def run(self, *arguments: object) -> Result:
        environment = {"SIMMERGE_CATALOG": str(self.catalog), "SIMMERGE_DATA": str(self.data), "COLUMNS": "200"}
        return CliRunner().invoke(app, [str(a) for a in arguments], env=environment)

    def edit(self, change: Callable[[dict], None]) -> None:
        """Change the parsed catalog and write it back."""
        raw = yaml.safe_load(self.catalog.read_text("utf-8"))
        change(raw)
        self.catalog.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")

    def state(self) -> dict[str, str]:
        """Content hash of every file there is, so that "untouched" can be checked."""
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
