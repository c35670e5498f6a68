"""Processes that write to an object store: ``create URL NAME COUNT``, or ``overwrite URL BYTES`` in parts of 5 MiB."""

from __future__ import annotations

import sys

import s3fs.core

from simmerge_core.files import write_atomically
from simmerge_core.storage import created, located

PART = 5 << 20

if __name__ == "__main__":
    what, place = sys.argv[1], located(sys.argv[2])
    if what == "create":
        print("ready", flush=True)
        sys.stdin.readline()  # several begin together
        won = [n for n in range(int(sys.argv[4])) if created(place / f"{n}.json", sys.argv[3].encode())]
        print(*won, flush=True)
    else:
        s3fs.core.calculate_chunksize = lambda size, chunksize=None: PART
        with write_atomically(place) as temporary:
            temporary.write_bytes(b"n" * int(sys.argv[3]))
        print("done", flush=True)
