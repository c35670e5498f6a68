"""Adding a checkpoint to a catalog file as text, so that comments, order and layout of the rest stay as they are."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from simmerge_core.catalog import Catalog, load_catalog
from simmerge_core.errors import CatalogError
from simmerge_core.files import write_atomically


def add_checkpoint(catalog: Path, entry: Mapping[str, str]) -> Catalog:
    """Put `entry` at the end of the catalog's checkpoints and return the catalog as it then is.

    The new text is read and validated before it takes the place of the file; whatever is wrong, the file is untouched.

    Raises
    ------
    CatalogError
        If the catalog with the entry is not valid, for example because the id is taken.
    """
    file = catalog.expanduser().resolve()  # a link stays a link: what it points to is replaced
    with _locked(file.parent):
        load_catalog(file)
        text = with_entry(_read(file), entry)
        with write_atomically(file) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
            shutil.copymode(file, temporary)
            try:
                load_catalog(temporary)
            except CatalogError as error:
                raise CatalogError(str(error).replace(str(temporary), str(file))) from error
    return load_catalog(file)


def _read(file: Path) -> str:
    with file.open(encoding="utf-8", newline="") as handle:  # line ends as they are
        return handle.read()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two additions at once come one after the other, so that neither loses the other's entry."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def with_entry(text: str, entry: Mapping[str, str]) -> str:
    """The catalog's text with one more checkpoint, everything else as it was.

    Parameters
    ----------
    text
        A valid catalog.
    entry
        Keys and values of the new checkpoint, in the order they are written.
    """
    end_of_line = "\r\n" if "\r\n" in text else "\n"
    written = yaml.safe_dump(dict(entry), default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    written = written.strip()
    place = _find_checkpoints(text)
    if place is None:
        body = text if not text or text.endswith("\n") else text + end_of_line
        return f"{body}checkpoints:{end_of_line}  - {written}{end_of_line}"
    if place.kind == "block":
        return _after_line(text, place.end, f"{' ' * place.column}- {written}", end_of_line)
    if place.kind == "flow":
        return f"{text[: place.end]}, {written}{text[place.end :]}"
    without = text[: place.key_end] + ":" + text[place.end :]
    return _after_line(without, place.key_end, f"  - {written}", end_of_line)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the checkpoints stand in the text.

    Attributes
    ----------
    kind
        ``block`` or ``flow`` sequence with items, or ``empty``.
    key_end
        Where the word ``checkpoints`` ends.
    end
        Where the last item's own text ends; of an empty value, where the value ends.
    column
        Column of the dashes of a block sequence.
    """

    kind: str
    key_end: int
    end: int
    column: int = 0


def _find_checkpoints(text: str) -> _Place | None:
    """Read from parser events, not nodes: an alias's node would point at its anchor, far away."""
    events = list(yaml.parse(text, Loader=yaml.SafeLoader))
    depth, is_key = 0, True
    for number, event in enumerate(events):
        if isinstance(event, yaml.MappingStartEvent) and depth == 0 and event.flow_style:
            raise CatalogError(
                "The catalog is written as one {…} mapping: put each top-level key on its own line to add to it."
            )
        if depth == 1 and is_key and isinstance(event, yaml.ScalarEvent) and event.value == "checkpoints":
            return _place(events, number)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth == 1 and not isinstance(event, yaml.MappingStartEvent):
            is_key = not is_key  # a whole key, or a whole value, has ended
        elif depth == 1 and isinstance(event, yaml.MappingStartEvent):
            is_key = True  # the top-level mapping has begun
    return None


def _place(events: list[yaml.Event], number: int) -> _Place:
    key_end = _stop(events[number])
    value = events[number + 1]
    if not isinstance(value, yaml.SequenceStartEvent):  # `checkpoints:` with nothing after it
        return _Place("empty", key_end, key_end + 1)
    depth, end, items = 1, 0, 0
    for event in events[number + 2 :]:
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            if depth == 0:
                break
        items += depth == 1
        depth += isinstance(event, yaml.CollectionStartEvent)
        # The end of a block collection lies behind the comments that follow it: its last leaf's end counts.
        ends = isinstance(event, yaml.ScalarEvent | yaml.AliasEvent | yaml.CollectionEndEvent)
        if ends and _stop(event) > _start(event):
            end = _stop(event)
    if not items:
        return _Place("empty", key_end, _stop(event))
    return _Place("flow" if value.flow_style else "block", key_end, end, _column(value))


def _start(event: yaml.Event) -> int:
    assert event.start_mark is not None  # events that were read from a text know their place
    return int(event.start_mark.index)


def _column(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return int(event.start_mark.column)


def _stop(event: yaml.Event) -> int:
    assert event.end_mark is not None
    return int(event.end_mark.index)


def _after_line(text: str, index: int, line: str, end_of_line: str) -> str:
    """`line` inserted after the line that holds position `index`."""
    stop = index - 1 if text[index - 1 : index] == "\n" else text.find("\n", index)
    if stop < 0:
        return f"{text}{end_of_line}{line}{end_of_line}"
    return f"{text[: stop + 1]}{line}{end_of_line}{text[stop + 1 :]}"
