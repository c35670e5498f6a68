"""``simmerge catalog add | request | list | check``: the declared checkpoints, tasks and merge requests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simmerge_cli.options import DEFAULT_CATALOG, AllowHub, CatalogFile, Json
from simmerge_cli.output import note, print_json, print_table
from simmerge_core.errors import CatalogError

if TYPE_CHECKING:
    from simmerge_core.catalog import Catalog, CheckpointEntry

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Add, list or check what the catalog declares.",
)

_BROKEN = 1
"""Exit code of `catalog check` when it did its work and found something broken."""


@app.command("add", epilog="\b\nExample:\n  simmerge catalog add math-99 ./my-math-model --domain math")
def add(
    id: Annotated[str, typer.Argument(metavar="ID", help="A new id: letters, digits, '_', '.' and '-'.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Its folder: config, tokenizer, safetensors.")],
    domain: Annotated[
        str, typer.Option("--domain", metavar="TASK", help="The task it was tuned for.", show_default=False)
    ],
    catalog: CatalogFile = DEFAULT_CATALOG,
    json: Json = False,
) -> None:
    """Declare a checkpoint. Its weights are checked first; the rest of the file stays as it is."""
    from simmerge_cli.catalog_check import open_and_compare
    from simmerge_core.catalog import CheckpointEntry, load_catalog
    from simmerge_core.catalog.edit import add_checkpoint
    from simmerge_core.ids import validate_id

    validate_id("checkpoint", id)
    declared = load_catalog(catalog)
    declared.task(domain)
    if id.casefold() in {known.casefold() for known in (declared.base.id, *declared.checkpoint_ids)}:
        raise CatalogError(f"Catalog {declared.path} already has a checkpoint {id!r}: choose another id.")
    folder = path.expanduser().absolute()
    entry = CheckpointEntry(id=id, path=folder, domain=domain)
    base = open_and_compare(declared.base, None)
    opened = open_and_compare(entry, base)
    written = {"id": id, "path": _written_path(folder, declared.path.parent), "domain": domain}
    add_checkpoint(catalog, written)
    if json:
        print_json({"added": written, "catalog": str(declared.path), "parameters": opened.parameters})
    else:
        typer.echo(f"Added {id} ({opened.parameters:,} parameters, {opened.dtype}) to {declared.path}.")
        note("A running pipeline finds it by itself; else run `simmerge demo` or materialize from `simmerge ui`.")


def _written_path(folder: Path, home: Path) -> str:
    """Relative to the catalog where it lies beside or below it, so that both can be moved together."""
    return folder.relative_to(home).as_posix() if folder.is_relative_to(home) else str(folder)


@app.command(
    "request",
    epilog="\b\nExample:\n"
    "  simmerge catalog request best-math --task math --k 3\n"
    "  simmerge catalog request both --task math=2 --task code --k 2 --policy lints --checkpoint math-01 "
    "--checkpoint code-01",
)
def request(
    id: Annotated[str, typer.Argument(metavar="ID", help="A new id: letters, digits, '_', '.' and '-'.")],
    task: Annotated[
        list[str],
        typer.Option(
            "--task", metavar="T[=W]", help="Target task; several are averaged, by weights W.", show_default=False
        ),
    ],
    k: Annotated[int, typer.Option("--k", metavar="K", help="How many checkpoints to merge.", show_default=False)],
    how: Annotated[str, typer.Option("--how", help="Several tasks count by their mean or their min.")] = "mean",
    checkpoint: Annotated[
        list[str] | None,
        typer.Option("--checkpoint", metavar="ID", help="One that may be merged; all of the catalog if none is given."),
    ] = None,
    actions: Annotated[
        str, typer.Option("--actions", metavar="SET", help="The operators to choose among.")
    ] = "extended",
    policy: Annotated[
        str, typer.Option("--policy", help="Who chooses: the trained selector, or a bandit, lints or linucb.")
    ] = "selector",
    top: Annotated[int, typer.Option("--top", metavar="N", help="How many plans to keep.")] = 20,
    catalog: CatalogFile = DEFAULT_CATALOG,
    json: Json = False,
) -> None:
    """Declare a merge request: what may be merged for which tasks. The rest of the file stays as it is.

    The same request again changes nothing and is no error.
    """
    from simmerge_cli.targets import weighted_tasks
    from simmerge_core.catalog.edit import add_merge_request

    tasks, weights = weighted_tasks(task)
    asked = {"id": id, "tasks": tasks, "how": how, "weights": weights, "k": k, "checkpoints": checkpoint or "all"}
    submitted = add_merge_request(catalog, {**asked, "actions": actions, "policy": policy, "top": top})
    if json:
        added = submitted.written if submitted.new else None
        told = submitted.request.model_dump(mode="json")
        print_json({"added": added, "merge_request": told, "catalog": str(submitted.catalog.path)})
    elif not submitted.new:
        typer.echo(f"{submitted.catalog.path} declares the same merge request {id} already: nothing is changed.")
    else:
        typer.echo(
            f"Added merge request {id} ({', '.join(tasks)}; k {k}; policy {policy}) to {submitted.catalog.path}."
        )
        note("A running pipeline finds it by itself; else run `simmerge demo` or materialize from `simmerge ui`.")


@app.command("list", epilog="\b\nExample:\n  simmerge catalog list\n  simmerge catalog list --json")
def list_(catalog: CatalogFile = DEFAULT_CATALOG, json: Json = False) -> None:
    """List what is declared; nothing is opened."""
    from simmerge_core.catalog import load_catalog

    declared = load_catalog(catalog)
    if json:
        print_json(_listing(declared))
        return
    rows = [
        (e.id, "base" if e is declared.base else e.domain, _source(e)) for e in (declared.base, *declared.checkpoints)
    ]
    print_table(("checkpoint", "domain", "from"), rows, title=str(declared.path))
    print_table(
        ("task", "benchmark", "metrics", "item sets"),
        [
            (t.id, b.name, b.metrics, [f"{k}={v}" for k, v in b.item_sets.items()])
            for t in declared.tasks
            for b in t.benchmarks
        ],
    )
    if declared.merge_requests:
        print_table(
            ("merge request", "targets", "k", "checkpoints", "actions", "policy"),
            [
                (r.id, r.targets, r.k, "all" if r.checkpoints == "all" else r.checkpoints, r.actions, r.policy)
                for r in declared.merge_requests
            ],
        )


def _source(entry: CheckpointEntry) -> str:
    return str(entry.path) if entry.path is not None else f"{entry.hub} at {entry.revision}"


def _listing(catalog: Catalog) -> dict[str, object]:
    return {
        "catalog": str(catalog.path),
        "base": catalog.base.model_dump(mode="json"),
        "checkpoints": [entry.model_dump(mode="json") for entry in catalog.checkpoints],
        "tasks": [task.model_dump(mode="json") for task in catalog.tasks],
        "merge_requests": [request.model_dump(mode="json") for request in catalog.merge_requests],
    }


@app.command("check", epilog="\b\nExample:\n  simmerge catalog check\n  simmerge catalog check --no-tasks --json")
def check(
    catalog: CatalogFile = DEFAULT_CATALOG,
    tasks: Annotated[bool, typer.Option("--tasks/--no-tasks", help="Also build every benchmark with lm-eval.")] = True,
    allow_hub: AllowHub = False,
    json: Json = False,
) -> None:
    """Open every checkpoint and task.

    One that is broken does not hide the others. The exit code is 1 if any is broken.
    """
    from simmerge_cli.catalog_check import findings
    from simmerge_core.catalog import load_catalog

    declared = load_catalog(catalog)
    found = list(findings(declared, allow_hub=allow_hub, tasks=tasks))
    broken = [finding for finding in found if finding.problem is not None]
    if json:
        rows = [
            {"kind": f.kind, "id": f.id, "ok": f.problem is None, "problem": f.problem, "detail": f.detail}
            for f in found
        ]
        print_json({"catalog": str(declared.path), "broken": len(broken), "entries": rows})
    else:
        print_table(
            ("entry", "id", "state", "what"),
            [(f.kind, f.id, "broken" if f.problem else "ok", f.detail) for f in found],
            title=str(declared.path),
        )
        for finding in broken:
            note(f"Error: {finding.problem}")
        note(f"{len(found) - len(broken)} of {len(found)} entries are sound.")
    if broken:
        raise typer.Exit(_BROKEN)
