"""Names of temporary files tell who writes them, so that what a killed process left can be removed."""

from __future__ import annotations

import os
import socket

_HOST = "".join(c if c.isalnum() or c == "-" else "_" for c in socket.gethostname())


def writer(process: int) -> str:
    """Name of a process of this host, without a dot."""
    return f"{_HOST}~{process}"


def is_gone(name: str) -> bool:
    """Whether the writer of this name was a process of this host and has ended; those of other hosts are not known."""
    host, _, process = name.rpartition("~")
    return host == _HOST and process.isdigit() and not is_alive(int(process))


def is_alive(process: int) -> bool:
    """Whether a process of this host runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
