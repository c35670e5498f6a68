"""``simmerge merge``: execute a plan on folders or catalog ids."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simmerge_cli.options import DEFAULT_CATALOG, AllowHub, CatalogFile, Device, Json
from simmerge_cli.output import note, print_json, progress
from simmerge_core.errors import MergeError

if TYPE_CHECKING:
    from simmerge_core.catalog import Catalog, CheckpointEntry
    from simmerge_core.operators.actions import Action

EPILOG = (
    "\b\nExample:\n"
    "  simmerge merge ./math ./code --operator slerp --out ./merged\n"
    "  simmerge merge math-01 code-02 rag-03 --operator linear --operator slerp@0.7 --out ./merged\n"
    "  simmerge merge ./math ./code --base ./base --operator task_arithmetic --out ./merged --json"
)


def run(
    checkpoints: Annotated[
        list[str],
        typer.Argument(metavar="A B [C …]", help="Folders or catalog ids, in plan order.", show_default=False),
    ],
    operator: Annotated[
        list[str],
        typer.Option(
            "--operator",
            "-o",
            metavar="OP",
            help="operator[@alpha][,name=value]: one for all steps, or one per step in order.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write; renamed into place when complete.")
    ],
    base: Annotated[
        str | None, typer.Option("--base", metavar="DIR", help="Folder or id of the base, for task-vector operators.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", help="Weight of the second checkpoint where --operator names none; 0.5 if not given."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", metavar="NAME", help="float32, bfloat16 or float16; as stored if not given."),
    ] = None,
    tokenizer_from: Annotated[
        str | None,
        typer.Option("--tokenizer-from", metavar="DIR", help="Folder or id to copy the tokenizer from; the first."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an earlier merge in --out.")] = False,
    device: Device = "cpu",
    allow_hub: AllowHub = False,
    catalog: CatalogFile = DEFAULT_CATALOG,
    json: Json = False,
) -> None:
    """Merge checkpoints into a Hugging Face folder.

    A name that is a folder is taken as that folder; any other is looked up in the catalog. Plain folders need no
    catalog. Steps are binary, from left to right. Alpha is the weight of the second checkpoint of a step.
    """
    if len(checkpoints) < 2:
        raise MergeError("A merge needs at least two checkpoints: name them in plan order.")
    places = _Places(catalog, allow_hub=allow_hub)
    inputs = [places.find(name) for name in checkpoints]
    base_path = places.find(base).path if base is not None else None
    tokenizer = places.find(tokenizer_from).path if tokenizer_from is not None else None
    _check_target(out, replace=replace)

    from simmerge_core.merging import execute_plan, needs_base
    from simmerge_core.operators import check_action
    from simmerge_core.plans import Plan

    names = _unique_names(inputs)
    plan = Plan(tuple(names), _actions(operator, alpha=alpha, steps=len(inputs) - 1))
    for action in plan.actions:
        check_action(action)
    if base_path is None and needs_base(plan) and all(place.declared for place in inputs):
        base_path = places.base()
    start = time.perf_counter()
    with progress(quiet=json) as report:
        merged = execute_plan(
            plan,
            {name: place.path for name, place in zip(names, inputs, strict=True)},
            out,
            base=base_path,
            dtype=dtype,
            device=device,
            tokenizer_from=tokenizer,
            provenance={"sources": {name: place.public for name, place in zip(names, inputs, strict=True)}},
            progress=report,
        )
    seconds = time.perf_counter() - start
    if json:
        print_json(
            {
                "path": str(merged.path),
                "plan": str(plan),
                "checkpoints": [str(place.path) for place in inputs],
                "actions": [str(action) for action in plan.actions],
                "dtype": merged.dtype,
                "parameters": merged.parameters,
                "recipe_key": merged.recipe_key,
                "fingerprint": merged.fingerprint,
                "seconds": round(seconds, 3),
            }
        )
    else:
        typer.echo(str(merged.path))
        note(f"{plan}: {merged.parameters:,} parameters as {merged.dtype} in {seconds:.1f} s.")


@dataclass(frozen=True, slots=True)
class _Place:
    """One input: its name in the plan, its folder, what a model card may call it, whether the catalog declares it."""

    name: str
    path: Path
    public: str
    declared: bool


class _Places:
    """Finds inputs by name: an existing folder first, else a checkpoint of the catalog, which is read only then."""

    def __init__(self, catalog: Path, *, allow_hub: bool) -> None:
        self._file = catalog
        self._allow_hub = allow_hub

    def find(self, name: str) -> _Place:
        folder = Path(name).expanduser()
        if folder.is_dir():
            own = folder.resolve().name or "model"
            return _Place(own, folder, own, declared=False)
        if not self._file.is_file() or "/" in name:
            raise MergeError(
                f"There is no folder {name!r}, and no catalog declares such an id: name a checkpoint folder, "
                f"or point --catalog (now {self._file}) at a catalog that has it."
            )
        entry = self._catalog().checkpoint(name)
        return _Place(name, self._resolved(entry), entry.hub or name, declared=True)

    def base(self) -> Path:
        """The catalog's base."""
        return self._resolved(self._catalog().base)

    def _catalog(self) -> Catalog:
        from simmerge_core.catalog import load_catalog

        return load_catalog(self._file)

    def _resolved(self, entry: CheckpointEntry) -> Path:
        from simmerge_core.checkpoints import resolve

        return resolve(entry, allow_hub=self._allow_hub)


def _unique_names(places: Sequence[_Place]) -> list[str]:
    """A name per input, made unique by a number where two different folders share one."""
    names: dict[Path, str] = {}
    for place in places:
        key = Path(os.path.realpath(place.path))  # takes a link that leads to itself, unlike Path.resolve
        number = 1
        while key not in names:
            name = place.name if number == 1 else f"{place.name}-{number}"
            number += 1
            if name not in names.values():
                names[key] = name
    return [names[Path(os.path.realpath(place.path))] for place in places]


def _actions(texts: Sequence[str], *, alpha: float | None, steps: int) -> tuple[Action, ...]:
    from simmerge_core.operators.actions import Action, parse_action

    if len(texts) not in (1, steps):
        raise MergeError(
            f"{steps + 1} checkpoints are merged in {steps} steps, but {len(texts)} operators were given: "
            "give one --operator for all steps, or one per step."
        )
    actions = []
    for text in texts:
        action = parse_action(text)
        if alpha is not None and "@" not in text:
            action = parse_action(str(Action(action.operator, alpha, action.params)))
        actions.append(action)
    return tuple(actions * steps if len(actions) == 1 else actions)


def _check_target(out: Path, *, replace: bool) -> None:
    if out.is_dir() and any(out.iterdir()) and not replace:
        raise MergeError(f"Folder {out} is not empty: choose another --out, or --replace an earlier merge.")
