"""fsspec's file system behind a scheme, and what its errors mean in one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from simmerge_core.errors import StorageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

EXTRAS = {"s3": "simmerge[s3]", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""What is installed for each scheme that a data root may have."""

FETCHED_PART, PARTS_AT_ONCE = 16 << 20, 4
"""Bytes of the parts that a large S3 object is fetched in, and how many are in memory at once, in either direction."""

LARGE = 64 << 20
"""Bytes from which objects are moved one after the other, so that memory stays bounded."""

_OPTIONS = {"s3": {"default_block_size": FETCHED_PART, "max_concurrency": PARTS_AT_ONCE}}
_CONFLICT, _TAKEN = {"ConditionalRequestConflict", "409"}, {"PreconditionFailed", "412"}


def file_system(scheme: str) -> AbstractFileSystem:
    """The file system of a scheme, the same object in all of a process, and another one after a fork.

    Credentials, region and endpoint are the library's own matter (for S3 boto's: environment, profile, role).

    Raises
    ------
    StorageError
        If what the scheme needs is not installed.
    """
    try:
        import fsspec

        # Listings are asked for when they are needed: what another process has written must be seen.
        return fsspec.filesystem(scheme, use_listings_cache=False, **_OPTIONS.get(scheme, {}))
    except ImportError as error:
        raise StorageError(
            f"A data root under {scheme}:// needs packages that are not installed: pip install '{EXTRAS[scheme]}'."
        ) from error


@contextlib.contextmanager
def asking(place: object) -> Iterator[None]:
    """Turn what an object store's library raises beside OSError into a StorageError that names the place.

    FileNotFoundError, FileExistsError and PermissionError pass, as they do for a folder.
    """
    try:
        yield
    except OSError as error:
        if is_taken(error):
            raise FileExistsError(f"{place} exists already.") from error
        raise
    except Exception as error:
        kind, module = type(error).__name__, type(error).__module__
        if isinstance(error, ValueError) and str(error).startswith("Invalid endpoint:"):  # as boto says it
            raise StorageError(f"{place} cannot be reached: AWS_ENDPOINT_URL is no address ({error}).") from error
        if not module.startswith(("botocore", "aiobotocore", "aiohttp", "google", "gcsfs", "azure", "adlfs")):
            raise
        raise StorageError(f"{place} cannot be reached ({kind}): {_REMEDIES.get(kind, _REMEDY)}") from error


_REMEDY = "check the endpoint, the credentials and the network."
_REMEDIES = {
    "NoCredentialsError": "give credentials, by AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "PartialCredentialsError": "give both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "EndpointConnectionError": "check AWS_ENDPOINT_URL and the network.",
    "ConnectTimeoutError": "check AWS_ENDPOINT_URL and the network.",
}


def is_taken(error: OSError) -> bool:
    """Whether a write was refused because the object exists."""
    return isinstance(error, FileExistsError) or _code(error) in _TAKEN


def is_conflict(error: OSError) -> bool:
    """Whether a conditional write met another one that was under way: neither says who was first, so ask again."""
    return _code(error) in _CONFLICT


def _code(error: OSError) -> str:
    response: Any = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
