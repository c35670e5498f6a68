"""A bandit's state as a folder: posterior as safetensors, settings as JSON, both under one key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simmerge_core.bandit.levels import TaskLevel
from simmerge_core.bandit.posterior import Posterior
from simmerge_core.errors import BanditError
from simmerge_core.files import hash_json, replaced_folder
from simmerge_core.storage import Location, ObjectPath, local_folder, located

if TYPE_CHECKING:
    from simmerge_core.bandit.policies import LinearBandit

BANDIT_FORMAT = 2
POSTERIOR_FILE, SETTINGS_FILE = "posterior.safetensors", "bandit.json"
_ARRAYS = ("precision", "moment", "factor", "mean", "updates")


def settings_of(bandit: LinearBandit) -> dict[str, Any]:
    """Everything but the posterior, JSON-ready."""
    return {
        "format": BANDIT_FORMAT,
        "kind": bandit.kind,
        "arms": list(bandit.arms),
        "retired": sorted(bandit.retired),
        "trials": [[arm, left] for arm, left in bandit.trials.items()],
        "levels": [[task, level.mean, level.weight] for task, level in bandit.levels.items()],
        "exploration": bandit.exploration,
        "regularisation": bandit.regularisation,
        "seed": bandit.seed,
        "mixing": bandit.mixing,
        "reward_range": list(bandit.reward_range),
        "source": bandit.source,
        "dimension": bandit.posterior.dimension,
        "selected": bandit.selected,
    }


def state_key(bandit: LinearBandit) -> str:
    """SHA-256 (hex) of settings and every bit of the posterior."""
    tensors = {
        n: [a.dtype.str, list(a.shape), hashlib.sha256(a.tobytes()).hexdigest()]
        for n, a in _tensors(bandit.posterior).items()
    }
    return hash_json({"settings": settings_of(bandit), "posterior": tensors})


def save_bandit(bandit: LinearBandit, folder: Location, *, once: bool = False) -> Location:
    """Write `posterior.safetensors` and `bandit.json`; the folder appears complete or not at all.

    In an object store the posterior is named after the key, and `bandit.json` says which one counts: of several
    writers under `once` one puts that.
    """
    from safetensors.numpy import save_file

    folder = located(folder)
    with replaced_folder(folder, last=SETTINGS_FILE, once=once) as temporary:
        described = {**settings_of(bandit), "key": state_key(bandit)}
        name = _keyed_file(described["key"]) if isinstance(folder, ObjectPath) else POSTERIOR_FILE
        save_file(_tensors(bandit.posterior), temporary / name)
        text = json.dumps(described, indent=2, sort_keys=True, allow_nan=False) + "\n"
        (temporary / SETTINGS_FILE).write_text(text, encoding="utf-8")
    return folder


def saved_key(folder: Location) -> str | None:
    """The key that a saved state names, unchecked; None where there is none."""
    try:
        return str(json.loads((located(folder) / SETTINGS_FILE).read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_bandit(folder: Location) -> LinearBandit:
    """Read what `save_bandit` wrote; it goes on with the same numbers.

    Raises
    ------
    BanditError
        If a file is missing, damaged, of another format, or not what its key says.
    """
    folder = located(folder)
    try:
        with local_folder(folder, last=SETTINGS_FILE) as place:
            return _read(place, folder)
    except FileNotFoundError as error:
        raise BanditError(f"There is no bandit in {folder}: {SETTINGS_FILE} is missing; start one first.") from error


def _read(place: Path, folder: Location) -> LinearBandit:
    """From a folder of this machine, which is said to be `folder`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from simmerge_core.bandit.policies import POLICIES

    posterior = POSTERIOR_FILE
    if isinstance(folder, ObjectPath) and (key := saved_key(place)) is not None:
        posterior = _keyed_file(key)
    for file in (posterior, SETTINGS_FILE):
        if not (place / file).is_file():
            raise BanditError(f"There is no bandit in {folder}: {file} is missing; start one first.")
    try:
        described = json.loads((place / SETTINGS_FILE).read_text(encoding="utf-8"))
        if described["format"] != BANDIT_FORMAT:
            raise BanditError(
                f"The bandit in {folder} is of format {described['format']}, not {BANDIT_FORMAT}, so another version "
                "wrote it: go on with that one, or put it aside by `simmerge bandit restart`."
            )
        tensors = load_file(place / posterior)
        bandit = POLICIES[described["kind"]](
            described["arms"],
            described["dimension"],
            exploration=described["exploration"],
            regularisation=described["regularisation"],
            seed=described["seed"],
            mixing=described["mixing"],
            reward_range=tuple(described["reward_range"]),
            source=described["source"],
            # safetensors gives arrays that borrow its buffer.
            posterior=Posterior(*(np.array(tensors[name]) for name in _ARRAYS)),
        )
        bandit.retired = set(described["retired"])
        bandit.trials = dict(described["trials"])
        bandit.levels = {task: TaskLevel(mean, weight) for task, mean, weight in described["levels"]}
        bandit.selected = described["selected"]
        whole = state_key(bandit) == described["key"]
    except BanditError as error:
        if str(folder) in str(error):
            raise
        raise BanditError(f"The bandit in {folder} cannot be used. {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, SafetensorError) as error:
        raise BanditError(
            f"The bandit in {folder} is damaged ({type(error).__name__}: {error}): restore it from a copy, or "
            "put it aside by `simmerge bandit restart`."
        ) from error
    if not whole:
        raise BanditError(
            f"The bandit in {folder} is not what its key says, so something in it was changed: restore it from a "
            "copy, or put it aside by `simmerge bandit restart`."
        )
    return bandit


def _keyed_file(key: str) -> str:
    return f"posterior-{key[:32]}.safetensors"


def _tensors(posterior: Posterior) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(getattr(posterior, name)) for name in _ARRAYS}
