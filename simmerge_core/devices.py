"""Whether a torch device can be computed on, asked before anything is read, trained or merged."""

from __future__ import annotations

from simmerge_core.errors import SimMergeError


def check_device(name: str) -> None:
    """Refuse a device that torch does not know or this machine does not have.

    Parameters
    ----------
    name
        As torch spells it, e.g. ``"cpu"`` or ``"cuda:1"``.

    Raises
    ------
    SimMergeError
        Naming the device and the reason.
    """
    import torch

    try:
        torch.zeros(1, device=name).cpu()  # the only test that also meets a missing driver; fails on "meta" too
    except Exception as error:  # each backend has errors of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise SimMergeError(f"Device {name!r} cannot be used ({reason}): choose another, such as cpu.") from error
