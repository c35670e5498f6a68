"""A place in an object store, with those of `pathlib.Path`'s methods that one can have."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any

from simmerge_core.errors import StorageError
from simmerge_core.storage.filesystem import EXTRAS, asking, file_system


@functools.total_ordering
class ObjectPath:
    """An object or a prefix, ``<scheme>://<bucket>/<key>``.

    It is no `os.PathLike`: what wants a file of this machine gets one from `local_copy`, and refuses this. There are
    no folders, only objects whose keys begin alike: `is_dir` says whether there is one. Nothing is remembered; every
    question is asked of the store, at the number of requests that its docstring says.
    """

    __slots__ = ("_path", "scheme")

    def __init__(self, scheme: str, path: PurePosixPath | str) -> None:
        self.scheme = scheme
        self._path = PurePosixPath(path)

    @classmethod
    def parse(cls, url: str) -> ObjectPath:
        """From a URL.

        Raises
        ------
        StorageError
            If the scheme is none that a data root may have, or bucket or key are not usable.
        """
        scheme, _, rest = url.partition("://")
        if scheme not in EXTRAS:
            known = ", ".join(f"{name}://" for name in EXTRAS)
            raise StorageError(
                f"A data root cannot lie under {scheme}://, which cannot create an object exclusively: give a folder, "
                f"or one of {known}."
            )
        parts = rest.rstrip("/").split("/")
        if any(c in rest for c in "@?#*[]\\") or not all(parts) or {".", ".."} & set(parts):
            # The URL is not repeated: before an @ there may be a password.
            raise StorageError(
                f"A data root under {scheme}:// is named <bucket>/<prefix>, without credentials, options, wildcards, "
                "or parts that are empty or dots: correct it."
            )
        return cls(scheme, "/".join(parts))

    def __str__(self) -> str:
        return f"{self.scheme}://{self._path}"

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __lt__(self, other: ObjectPath) -> bool:
        return (self.scheme, self._path) < (other.scheme, other._path)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, part: str) -> ObjectPath:
        return self.joinpath(part)

    def joinpath(self, *parts: str) -> ObjectPath:
        """A place below; parts are names, or several joined by slashes."""
        return ObjectPath(self.scheme, self._path.joinpath(*parts))

    def with_name(self, name: str) -> ObjectPath:
        """The place beside this one."""
        return ObjectPath(self.scheme, self._path.with_name(name))

    def relative_to(self, other: ObjectPath) -> PurePosixPath:
        """The key below a place above; raises ValueError if it is not."""
        return self._path.relative_to(other._path)

    @property
    def bucket(self) -> str:
        """The bucket, for Azure the container."""
        return self._path.parts[0]

    @property
    def key(self) -> str:
        """Bucket and key, as fsspec wants them."""
        return str(self._path)

    @property
    def name(self) -> str:
        """The last part."""
        return self._path.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self._path.stem

    @property
    def suffix(self) -> str:
        """The last part's suffix with its dot."""
        return self._path.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """Bucket, and the parts of the key."""
        return self._path.parts

    @property
    def parent(self) -> ObjectPath:
        """The place above."""
        return ObjectPath(self.scheme, self._path.parent)

    def absolute(self) -> ObjectPath:
        """Itself."""
        return self

    def expanduser(self) -> ObjectPath:
        """Itself."""
        return self

    def as_uri(self) -> str:
        """The URL."""
        return str(self)

    def exists(self) -> bool:
        """Whether there is an object, or one below: a HEAD, and one LIST if there is none here."""
        return self._kind() is not None

    def is_file(self) -> bool:
        """Whether there is an object here: a HEAD, and one LIST if there is none."""
        from simmerge_core.storage.listings import remembered

        known, file = remembered(self)
        return file is not None if known else self._kind() == "file"

    def is_dir(self) -> bool:
        """Whether there is an object below: a HEAD and a LIST."""
        return self._kind() == "directory"

    def is_symlink(self) -> bool:
        """False: there are no links."""
        return False

    def _kind(self) -> str | None:
        try:
            with asking(self):
                return str(file_system(self.scheme).info(self.key)["type"])
        except FileNotFoundError:
            return None

    def read_bytes(self) -> bytes:
        """All of an object: one GET."""
        with asking(self):
            return bytes(file_system(self.scheme).cat_file(self.key))

    def read_text(self, encoding: str = "utf-8") -> str:
        """All of an object as text: one GET."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> IO[Any]:
        """An object for reading, as a file of this machine that holds all of it."""
        from simmerge_core.storage.copies import local_copy

        if mode not in ("r", "rb"):
            raise ValueError(f"{self} is opened for reading alone: write it by `files.write_atomically`.")
        return local_copy(self).open(mode)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete an object: one DELETE. That of an absent one succeeds, as object stores have it."""
        try:
            with asking(self):
                file_system(self.scheme).rm_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def iterdir(self) -> Iterator[ObjectPath]:
        """The names right below, sorted, objects and prefixes: one LIST for each thousand. None if there are none."""
        fs = file_system(self.scheme)
        try:
            with asking(self):
                names = [info["name"] for info in fs.ls(self.key, detail=True)]
        except FileNotFoundError:
            return
        for name in sorted(names):
            path = ObjectPath(self.scheme, name.strip("/"))
            if path.parent == self:  # for an absent prefix some stores give what lies beside it
                yield path

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Objects and prefixes below that match part by part, sorted: one LIST for each thousand that lie below."""
        from simmerge_core.storage.listings import listed

        wanted = pattern.split("/")
        below = [file.path.relative_to(self).parts for file in listed(self)]
        found = dict.fromkeys(parts[: len(wanted)] for parts in below if len(parts) >= len(wanted))
        for parts in found:
            if all(map(fnmatch.fnmatchcase, parts, wanted)):
                yield self.joinpath(*parts)
