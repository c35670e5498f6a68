"""What commands print: results on stdout, progress and notes on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import typer

Progress = Callable[[str, float], None]
"""(message, fraction from 0 to 1) → nothing; the form every long call of the library takes."""

_QUIET_SECONDS = 5.0


def note(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    typer.echo(text, err=True)


def print_json(value: Any) -> None:
    """`value` as indented JSON on stdout; numbers that are not finite become null, paths and dates their text."""
    typer.echo(json.dumps(_plain(value), indent=2, allow_nan=False, ensure_ascii=False, default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> None:
    """Rows as a table on stdout, as wide as they need when stdout is no terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    numeric = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(columns))]
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        # Text, not markup: ids and file names may hold square brackets.
        table.add_row(*(Text(_cell(value)) for value in row))
    print_rich(table)


def print_rich(renderable: Any) -> None:
    """A rich renderable on stdout; into a file or pipe, lines are as long as they need to be."""
    from rich.console import Console

    to_terminal = sys.stdout.isatty()
    Console(width=None if to_terminal else 10_000, soft_wrap=not to_terminal).print(renderable)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    return "" if value is None else str(value)


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """A progress callback that draws one bar on a terminal, and prints plain lines otherwise, always on stderr."""
    if quiet:
        yield lambda message, fraction: None
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _lines()


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(bar_width=24), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda message, fraction: bars.update(task, description=message, completed=fraction)


def _lines() -> Progress:
    """A line each few seconds, none for what is done before the first; the last one too if there were any."""
    start = time.monotonic()
    last = 0.0
    shown = ""

    def report(message: str, fraction: float) -> None:
        nonlocal last, shown
        now = time.monotonic() - start
        line = f"{100 * fraction:3.0f} %  {message}"
        if line != shown and (now - last >= _QUIET_SECONDS or (fraction >= 1.0 and shown)):
            last, shown = now, line
            note(f"[{now:5.0f} s] {line}")

    return report
