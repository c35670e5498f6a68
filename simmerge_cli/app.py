"""The command ``simmerge``: its subcommands, and how errors leave it."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from simmerge_core.errors import SimMergeError

USER_ERROR = 2
"""Exit code of every error that a user can cause; the same as for a misspelt option."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, 128 + SIGINT as shells expect."""


_COMMANDS = {
    "demo": "Train the demo catalog and run everything on it.",
    "catalog": "Add, list or check what the catalog declares.",
    "features": "Print or export rows of the feature table.",
    "plan": "Rank merge plans by predicted utility.",
    "merge": "Merge checkpoints into a Hugging Face folder.",
    "evaluate": "Score one model on tasks of the catalog.",
    "bandit": "Bandits that keep learning: their rounds, replay, and policies judged on them.",
    "report": "Compare what was predicted with every baseline.",
    "experiments": "Reproduce the paper's tables and figures on a labelled catalog.",
    "tables": "List the result tables, or the columns of one.",
    "ui": "Open the Dagster UI on the results.",
}
"""Every command in the order of the help text; each is the file of its name in `simmerge_cli.commands`."""


class _Commands(TyperGroup):
    """Imports a command's file when it is asked for, and turns errors into one sentence on stderr."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return list(_COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"simmerge_cli.commands.{cmd_name}")
        if hasattr(module, "app"):
            return typer.main.get_command(module.app)
        single = typer.Typer(rich_markup_mode=None, add_completion=False)
        single.command(cmd_name, epilog=module.EPILOG)(module.run)
        return typer.main.get_command(single)

    def get_help_option(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        # Without a default, typer imports pydantic to turn "not given" into a bool: half of the start-up time.
        option = super().get_help_option(ctx)
        if option is not None and option.default is None:
            option.default = False
        return option

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except SimMergeError as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(USER_ERROR) from error
        except KeyboardInterrupt:
            typer.echo("Interrupted: what was finished is kept, run the same command to go on.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # `simmerge features | head` closes the pipe early: nothing went wrong.
            sys.stderr.close()
            raise typer.Exit(0) from None
        except OSError as error:
            if ctx.params.get("debug"):
                raise
            place = f"{error.filename}: " if error.filename else ""
            typer.echo(f"Error: {place}{error.strerror or error}.", err=True)
            raise typer.Exit(USER_ERROR) from error
        except Exception as error:
            # A table that lacks a column, say; polars is not imported here, so its errors are told by their module.
            if ctx.params.get("debug") or not type(error).__module__.startswith("polars"):
                raise
            text = " ".join(str(error).partition("\n\n")[0].split())
            typer.echo(f"Error: A table is not as its schema says ({text}): materialize it again.", err=True)
            raise typer.Exit(USER_ERROR) from error


# Without rich's markup mode, help text costs half as much time; examples keep their line breaks by \b.
app = typer.Typer(
    name="simmerge",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,  # its two options would make typer import pydantic at every start
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("simmerge")
        except PackageNotFoundError:
            found = "not installed"
        typer.echo(f"simmerge {found}")
        raise typer.Exit


@app.callback(
    epilog="\b\nExample:\n  simmerge demo\n  simmerge plan math-01 code-02 rag-03 --task math\n\n"
    "\b\nEnvironment:\n  SIMMERGE_CATALOG  catalog file (default demo/catalog.yaml)\n"
    "  SIMMERGE_DATA     data root that holds every result (default data)\n"
    "  DAGSTER_HOME      Dagster's event log (default dagster_home)"
)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Predict which fine-tuned checkpoints to merge, with which operator and in what order, before merging anything."""


def main() -> None:
    """Run the command line of this process; the entry of the console script."""
    app()


if __name__ == "__main__":
    main()
