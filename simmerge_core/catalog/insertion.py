"""One more entry in a list of a catalog's text, with comments, order and layout of the rest as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from simmerge_core.errors import CatalogError


def with_entry(text: str, key: str, entry: Mapping[str, object], *, name: str = "The catalog") -> str:
    """The catalog's text with one more entry in a top-level list, everything else as it was.

    Parameters
    ----------
    text
        A valid catalog.
    key
        The list, such as ``checkpoints``; one that is not there is begun at the end.
    entry
        Keys and values of the new entry, in the order they are written; values are plain YAML.
    name
        What errors call the catalog.

    Raises
    ------
    CatalogError
        If the text is laid out so that the entry cannot be added to it.
    """
    written = yaml.safe_dump(dict(entry), default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    written = written.strip()
    added = _added(text, key, written, name)
    if not _holds(added, text, key, entry):
        raise CatalogError(
            f"{name} is laid out so that a program cannot add to its {key}: write the entry {written} into it by hand."
        )
    return added


def _holds(added: str, text: str, key: str, entry: Mapping[str, object]) -> bool:
    """Whether the new text says what the old one does, and the entry at the end of its list."""
    before = yaml.safe_load(text)
    try:
        after = yaml.safe_load(added)
    except yaml.YAMLError:
        return False
    return bool(after == {**before, key: [*(before.get(key) or []), dict(entry)]})


def _added(text: str, key: str, written: str, name: str) -> str:
    end_of_line = "\r\n" if "\r\n" in text else "\n"
    # From parser events, not nodes: an alias's node would point at its anchor, far away.
    events = list(yaml.parse(text, Loader=yaml.SafeLoader))
    root = next(event for event in events if isinstance(event, yaml.MappingStartEvent))
    if root.flow_style:
        raise CatalogError(
            f"{name} is written as one {{…}} mapping: put each top-level key on its own line to add to it."
        )
    margin = " " * _column(root)
    number = _value_of(events, key)
    if number is None:
        return _at_the_end(text, events[-2], f"{margin}{key}:{end_of_line}{margin}  - {written}", end_of_line)
    value = events[number]
    if not isinstance(value, yaml.SequenceStartEvent) and not _is_nothing(value):
        raise CatalogError(f"{name} does not write the list {key} out where it stands: do so to add to it.")
    last, end = _last_item(events, number)
    if last is not None and isinstance(value, yaml.SequenceStartEvent) and value.flow_style:
        return f"{text[:last]}, {written}{text[last:]}"
    if last is not None:
        return _after_line(text, last, f"{' ' * _column(value)}- {written}", end_of_line)
    if "#" in text[_stop(value) : end]:  # a comment within the empty brackets
        return f"{text[: _stop(value)]}{written}{text[_stop(value) :]}"
    key_end = len(text[: _start(value)].rstrip(" "))
    return _after_line(text[:key_end] + text[end:], key_end, f"{margin}  - {written}", end_of_line)


def _value_of(events: Sequence[yaml.Event], key: str) -> int | None:
    """Number of the event that begins the value of a top-level key."""
    depth, is_key = 0, True
    for number, event in enumerate(events):
        if depth == 1 and is_key and isinstance(event, yaml.ScalarEvent) and event.value == key:
            return number + 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth == 1 and not isinstance(event, yaml.MappingStartEvent):
            is_key = not is_key  # a whole key, or a whole value, has ended
        elif depth == 1 and isinstance(event, yaml.MappingStartEvent):
            is_key = True  # the top-level mapping has begun
    return None


def _last_item(events: Sequence[yaml.Event], number: int) -> tuple[int | None, int]:
    """Where the own text of a list's last item ends (None if it has no item), and where the list itself ends."""
    depth, last = 0, None
    for event in events[number:]:
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth <= 0 and not isinstance(event, yaml.CollectionStartEvent):
            break
        # The end of a block collection lies behind the comments that follow it: its last leaf's end counts.
        ends = isinstance(event, yaml.ScalarEvent | yaml.AliasEvent | yaml.CollectionEndEvent)
        if ends and _stop(event) > _start(event):
            last = _stop(event)
        depth += isinstance(event, yaml.CollectionStartEvent)
    return last, _stop(event)


def _is_nothing(event: yaml.Event) -> bool:
    """Whether a key has no value, not even ``null``."""
    return isinstance(event, yaml.ScalarEvent) and _start(event) == _stop(event)


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


def _at_the_end(text: str, end: yaml.Event, lines: str, end_of_line: str) -> str:
    """`lines` after everything else, but before the mark ``...`` that may end the document."""
    stop = _start(end) if isinstance(end, yaml.DocumentEndEvent) and end.explicit else len(text)
    body = text[:stop]
    if body and not body.endswith("\n"):
        body += end_of_line
    return f"{body}{lines}{end_of_line}{text[stop:]}"
