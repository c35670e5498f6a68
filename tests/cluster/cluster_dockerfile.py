"""The Dockerfile as instructions, and the files of its last stage laid out as the image has them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

PROJECT = Path(__file__).parents[2]
DOCKERFILE = PROJECT / "docker" / "Dockerfile"


@dataclass(frozen=True)
class Instruction:
    """One instruction: its keyword, its ``--flags``, and what follows."""

    keyword: str
    flags: dict[str, str]
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest as words; of the JSON form if it is one."""
        return list(json.loads(self.rest)) if self.rest.startswith("[") else self.rest.split()


@dataclass(frozen=True)
class Stage:
    """A build stage."""

    base: str
    name: str
    instructions: list[Instruction]

    def all(self, keyword: str) -> list[Instruction]:
        """Its instructions of one kind."""
        return [instruction for instruction in self.instructions if instruction.keyword == keyword]


def stages(file: Path = DOCKERFILE) -> list[Stage]:
    """The stages of a Dockerfile, in order."""
    found: list[Stage] = []
    lines = [line for line in file.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    for text in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if not text.strip():
            continue
        keyword, _, rest = text.strip().partition(" ")
        flags: dict[str, str] = {}
        while match := re.match(r"--([\w-]+)=(\S+)\s+", rest.lstrip()):
            flags[match[1]], rest = match[2], rest.lstrip()[match.end() :]
        instruction = Instruction(keyword.upper(), flags, rest.strip())
        if instruction.keyword == "FROM":
            base, _, name = instruction.rest.partition(" AS ")
            found.append(Stage(base.strip(), name.strip(), []))
        elif found:
            found[-1].instructions.append(instruction)
    return found


def copied(stage: Stage) -> list[tuple[list[str], str]]:
    """Sources in the build context, and destination, of each COPY of a stage."""
    copies = [c for c in stage.all("COPY") if "from" not in c.flags]
    return [(c.words[:-1], c.words[-1]) for c in copies]


def in_context(source: str, ignore: Path = PROJECT / ".dockerignore") -> bool:
    """Whether .dockerignore leaves a file or folder in the build context: the last pattern that matches decides."""
    kept = True
    for line in ignore.read_text("utf-8").splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            excluded = not pattern.startswith("!")
            parents = [source, *map(str, Path(source).parents)]
            if any(fnmatch(place, pattern.lstrip("!")) for place in parents if place != "."):
                kept = not excluded
    return kept


def unpack(root: Path) -> None:
    """Lay out below `root` what the last stage copies from the build context, and what it appends to it."""
    last = stages()[-1]
    here = "/"
    for instruction in last.instructions:
        if instruction.keyword == "WORKDIR":
            here = instruction.rest
        elif instruction.keyword == "COPY" and "from" not in instruction.flags:
            *sources, to = instruction.words
            place = root / (Path(here) / to).relative_to("/")
            for source in map(PROJECT.joinpath, sources):
                if source.is_dir():
                    shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
                    continue
                target = place / source.name if to.endswith("/") else place
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
