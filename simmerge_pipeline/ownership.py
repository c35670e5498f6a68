"""Which partition holds a pair of checkpoints: arrival-order ownership.

The partition of a checkpoint takes every other checkpoint that is there, unless that one's partition already holds the
pair. "Registered before" would lose pairs when a checkpoint is late, failed or backfilled by hand; this rule cannot: at
any time, a pair of two present checkpoints is held by one of both partitions, or one of both is still to be written.
Two partitions written at once can at worst both hold a pair, so readers take each pair once.
"""

from __future__ import annotations

from collections.abc import Iterable, Set


def owned_others(checkpoint: str, *, present: Iterable[str], held: Set[tuple[str, str]], later: Set[str]) -> list[str]:
    """The checkpoints with which the partition of `checkpoint` is to hold a pair.

    Parameters
    ----------
    present
        Checkpoints whose inputs exist, in any order; the base is none of them, since it owns no pairs.
    held
        (owner, other) for every pair that a written partition holds with the present content of both.
    later
        Checkpoints whose partitions the same run writes after this one; they will find the pair missing and take it.

    Returns
    -------
    list of str
        Sorted ids, without `checkpoint` itself.
    """
    others = sorted(set(present) - {checkpoint})
    # What it holds it keeps: two partitions that both hold a pair and are written again at once must not both drop it.
    return [d for d in others if (checkpoint, d) in held or ((d, checkpoint) not in held and d not in later)]
