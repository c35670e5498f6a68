"""What the tests of a deployment do alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from cluster_compose import Deployment
from cluster_graphql import FINISHED, Interface, wait_for


def put_catalog(deployment: Deployment, tiny_catalog: Path) -> Path:
    """Put a part of the tiny catalog into the volume: what takes time are processes, not checkpoints."""
    whole = yaml.safe_load(tiny_catalog.read_text("utf-8"))
    part = {"checkpoints": whole["checkpoints"][:3], "tasks": whole["tasks"][:1], "merge_requests": []}
    shutil.copytree(tiny_catalog.parent, deployment.volume("catalog"), dirs_exist_ok=True)
    file = deployment.volume("catalog") / "catalog.yaml"
    file.write_text(yaml.safe_dump({**whole, **part}, sort_keys=False), "utf-8")
    return file


def completes(deployment: Deployment, interface: Interface, backfill: str) -> None:
    """Wait for the end of a backfill, which must be a good one."""
    status = wait_for(
        lambda: interface.status(backfill),
        FINISHED.__contains__,
        lambda: "\n".join(deployment.processes.told(name) for name in ("daemon", "code")),
    )
    assert status == "COMPLETED_SUCCESS", deployment.processes.told("code")
