"""Adding to a catalog file: checked as a whole before it takes the file's place, one addition after the other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simmerge_core.catalog.insertion import with_entry
from simmerge_core.catalog.load import load_catalog, request_problem
from simmerge_core.catalog.model import Catalog, MergeRequest
from simmerge_core.errors import CatalogError
from simmerge_core.files import write_atomically
from simmerge_core.ids import validate_id


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a merge request that was submitted.

    Attributes
    ----------
    request
        The request as the catalog declares it.
    written
        Its entry in the file: what is not as by default.
    catalog
        The catalog as it now is.
    new
        False if the catalog had declared the same request before; the file is then untouched.
    """

    request: MergeRequest
    written: dict[str, Any]
    catalog: Catalog
    new: bool


def add_checkpoint(catalog: Path, entry: Mapping[str, str]) -> Catalog:
    """Put `entry` at the end of the catalog's checkpoints and return the catalog as it then is.

    The new text is read and validated before it takes the place of the file; whatever is wrong, the file is untouched.

    Raises
    ------
    CatalogError
        If the catalog with the entry is not valid, for example because the id is taken, or cannot be written.
    """
    with _locked(catalog) as declared:
        return _add(declared.path, "checkpoints", entry)


def add_merge_request(catalog: Path, entry: Mapping[str, object]) -> Submission:
    """Put a merge request at the end of the catalog's.

    Parameters
    ----------
    catalog
        The catalog file.
    entry
        Keys and values of a `MergeRequest`; what is as by default is not written.

    Raises
    ------
    CatalogError
        If the request cannot be served by this catalog, its id is taken by another one, or the file cannot be written;
        the file is then untouched.
    """
    request = _validated(entry)
    written = _written(request)
    with _locked(catalog) as declared:
        for earlier in declared.merge_requests:
            if earlier.id.casefold() != request.id.casefold():
                continue
            if _written(earlier) == written:
                return Submission(earlier, written, declared, new=False)
            raise CatalogError(
                f"Catalog {declared.path} already has a merge request {earlier.id!r}, which asks for something else: "
                "choose another id."
            )
        problem = request_problem(declared, request)
        if problem is not None:
            raise CatalogError(f"Merge request {request.id!r} {problem}.")
        return Submission(request, written, _add(declared.path, "merge_requests", written), new=True)


def _validated(entry: Mapping[str, object]) -> MergeRequest:
    id = validate_id("merge request", str(entry.get("id", "")))
    try:
        return MergeRequest.model_validate(dict(entry))
    except ValidationError as error:
        last = error.errors(include_url=False)[-1]  # of a union, what is wrong with its last alternative: a list
        text = last["msg"].removeprefix("Value error, ")
        text = text[:1].lower() + text[1:]
        key, *rest = last["loc"] or ("",)
        if not key:
            raise CatalogError(f"{text[:1].upper()}{text[1:]}.") from error
        place = "".join([str(key), *(f"[{part}]" for part in rest if isinstance(part, int))])
        raise CatalogError(
            f"Merge request {id!r} has {place} {last['input']!r}, which cannot be used: {text}."
        ) from error


def _written(request: MergeRequest) -> dict[str, Any]:
    """The entry of a request in the file; equal for requests that ask for the same."""
    alone = request.weights is None and len(request.targets) == 1
    target = {"task": request.targets[0], "tasks": ()} if alone else {"task": None, "tasks": request.targets}
    plain = request.model_copy(update=target)
    told = plain.model_dump(exclude_defaults=True).keys() | {"k"}  # its size is what every request is read for
    return {key: value for key, value in plain.model_dump(mode="json").items() if key in told}


@contextlib.contextmanager
def _locked(catalog: Path) -> Iterator[Catalog]:
    """The catalog while no other addition is made: two at once come one after the other, and neither is lost."""
    load_catalog(catalog)  # a file that is not there may have no folder to lock
    file = catalog.expanduser().resolve()  # a link stays a link: what it points to is replaced
    with _told(file):
        handle = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield load_catalog(file)
    finally:
        os.close(handle)


def _add(file: Path, key: str, entry: Mapping[str, object]) -> Catalog:
    with file.open(encoding="utf-8", newline="") as handle:  # line ends as they are
        text = with_entry(handle.read(), key, entry, name=f"Catalog {file}")
    with _told(file), write_atomically(file) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
        shutil.copymode(file, temporary)
        try:
            load_catalog(temporary)
        except CatalogError as error:
            raise CatalogError(str(error).replace(str(temporary), str(file))) from error
    return load_catalog(file)


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    """What the file system refuses, said as one sentence about the catalog."""
    try:
        yield
    except OSError as error:
        raise CatalogError(
            f"Catalog {file} cannot be replaced ({error.strerror}): see to the permissions and the space of its folder."
        ) from error
