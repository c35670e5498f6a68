"""Looking at everything a catalog declares: each checkpoint and each task, one fault never hiding another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simmerge_core.errors import SimMergeError

if TYPE_CHECKING:
    from simmerge_core.catalog import Catalog, CheckpointEntry, Task
    from simmerge_core.checkpoints import CheckpointFolder


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one entry.

    Attributes
    ----------
    kind, id
        ``base``, ``checkpoint`` or ``task``, and its id.
    problem
        One sentence; None where all is well.
    detail
        What there is, in a few words.
    """

    kind: str
    id: str
    problem: str | None
    detail: str = ""


def findings(
    catalog: Catalog, *, allow_hub: bool = False, checkpoints: bool = True, tasks: bool = True
) -> Iterator[Finding]:
    """Open every checkpoint and every task, in file order, the base first.

    A checkpoint is resolved, opened by its headers, read whole for NaN and infinity, and compared with the base in
    architecture, shapes and vocabulary. A task's probes are read and its benchmarks are built by lm-eval.
    """
    if checkpoints:
        base, found = _checkpoint("base", catalog.base, None, allow_hub=allow_hub)
        yield found
        for entry in catalog.checkpoints:
            found = _checkpoint("checkpoint", entry, base, allow_hub=allow_hub)[1]
            if found.problem is None and (problem := catalog.domain_problem(entry)) is not None:
                found = Finding(found.kind, found.id, problem)
            yield found
        for left in catalog.left_out:
            yield Finding("checkpoint", left.name, left.why)
    if tasks:
        for task in catalog.tasks:
            yield _task(task, allow_hub=allow_hub)


def open_and_compare(
    entry: CheckpointEntry, base: CheckpointFolder | None, *, allow_hub: bool = False
) -> CheckpointFolder:
    """The opened folder of an entry, its weights finite and fitting the base; raises CheckpointError otherwise."""
    from simmerge_core.checkpoints import check_compatible, check_finite, open_checkpoint, resolve

    folder = open_checkpoint(resolve(entry, allow_hub=allow_hub), name=entry.id)
    if base is not None:
        check_compatible([base, folder])
    check_finite(folder)
    return folder


def _checkpoint(
    kind: str, entry: CheckpointEntry, base: CheckpointFolder | None, *, allow_hub: bool
) -> tuple[CheckpointFolder | None, Finding]:
    try:
        folder = open_and_compare(entry, base, allow_hub=allow_hub)
    except (SimMergeError, OSError) as error:
        return None, Finding(kind, entry.id, _sentence(error))
    return folder, Finding(
        kind, entry.id, None, f"{folder.parameters:,} parameters, {folder.dtype}, domain {entry.domain}"
    )


def _task(task: Task, *, allow_hub: bool) -> Finding:
    from simmerge_core.evaluation import check_task
    from simmerge_core.probes import read_prompts

    try:
        prompts = read_prompts(task.probes, limit=task.probe_settings.count)
        check_task(task, allow_network=allow_hub)
    except (SimMergeError, OSError) as error:
        return Finding("task", task.id, _sentence(error))
    benchmarks = ", ".join(f"{b.name} ({', '.join(b.metrics)})" for b in task.benchmarks)
    return Finding("task", task.id, None, f"{len(prompts)} probes; {benchmarks}")


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())
