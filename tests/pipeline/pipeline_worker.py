"""A process that materializes assets when it is told to: `pipeline_worker.py CATALOG DATA HOME GO ASSET …`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from simmerge_pipeline.materialize import materialize_all


def main(catalog: str, data: str, home: str, go: str, *assets: str) -> None:
    """Say that it is ready, wait for the file `go`, and print what failed."""
    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.01)
    summary = materialize_all(catalog=catalog, data_root=data, dagster_home=home, workers=1, assets=assets)
    print(summary.failed, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
