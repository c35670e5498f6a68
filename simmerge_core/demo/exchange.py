"""How two processes that train one base give each other their parts of a gradient."""

from __future__ import annotations

import socket
from pathlib import Path

import torch
from torch import Tensor


class PeerLostError(Exception):
    """The other process ended; what it was doing is reported by whoever started both."""


class SharedFileExchange:
    """Gradient parts in a memory-mapped file, one byte over a socket when a part is complete.

    Two sets of slots take turns: a process reaches a set again only after the other has announced the step between, and
    so has finished reading. One exchange a step is then enough.
    """

    def __init__(self, path: Path, *, shard: int, shards: int, size: int, peer: socket.socket) -> None:
        """Map `path`, a file of 2 * shards * size float32 values."""
        self._slots = torch.from_file(str(path), shared=True, size=2 * shards * size).view(2, shards, size)
        self._shard = shard
        self._peer = peer
        self._turn = 0

    def __call__(self, own: Tensor) -> list[Tensor]:
        """Publish the own part (size,), wait for the peer's, return all in the order of their shards."""
        slots = self._slots[self._turn]
        slots[self._shard].copy_(own)
        self._turn = 1 - self._turn
        try:
            self._peer.sendall(b"+")
            if self._peer.recv(1) != b"+":
                raise PeerLostError
        except OSError as error:
            raise PeerLostError from error
        return list(slots)
