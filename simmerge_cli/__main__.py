"""``python -m simmerge_cli``: the same as the console script ``simmerge``."""

from __future__ import annotations

from simmerge_cli.app import main

if __name__ == "__main__":
    main()
