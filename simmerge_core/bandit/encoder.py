"""The feature map z(s) = g_φ(s): the last hidden layer of an MLP trained on logged merges, then frozen (§2.4, §3.5)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from simmerge_core.bandit.context import Context
from simmerge_core.errors import BanditError
from simmerge_core.features.columns import FEATURE_VERSION
from simmerge_core.files import hash_file, hash_json, replaced_folder
from simmerge_core.selector.block import FeatureBlock, block_of
from simmerge_core.selector.config import SelectorConfig
from simmerge_core.selector.fitting import tune
from simmerge_core.selector.members import fit_members
from simmerge_core.selector.mlp import Targets
from simmerge_core.selector.rows import TrainingRows, refuse_leaks
from simmerge_core.selector.scaling import Scaler
from simmerge_core.selector.splits import pair_folds, validation_mask
from simmerge_core.selector.threads import one_blas_thread
from simmerge_core.storage import Location, local_folder, located

ENCODER_FORMAT = 1
WEIGHTS_FILE, CONFIG_FILE = "encoder.safetensors", "encoder.json"
_HIDDEN = ("w1", "b1", "w2", "b2")
_STOPPING_FOLDS = 8
LEAST_PAIRS = 8

ENCODER = SelectorConfig(heads="shared", members=2)
"""Settings of the network whose last hidden layer is the representation: one network for all utilities (§3.5)."""


@dataclass(frozen=True)
class Encoder:
    """A frozen g_φ.

    Attributes
    ----------
    weights
        Two hidden layers, float32: w1 (f, h), b1 (1, h), w2 (h, h), b2 (1, h).
    scale
        Root mean square of the hidden units over the rows it was trained on: z is divided by it, so that one prior
        suits every width. One number for all units, since a unit that hardly ever fired may fire after a shift.
    training_fingerprint
        Content hash of the rows it was trained on.
    """

    feature_names: tuple[str, ...]
    scaler: Scaler
    weights: Mapping[str, np.ndarray]
    scale: float
    training_fingerprint: str
    feature_version: int = FEATURE_VERSION

    @property
    def dimension(self) -> int:
        """Coordinates of z: the hidden units, and a constant."""
        return self.weights["w2"].shape[1] + 1

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that have a code; others are encoded as zeros."""
        return self.scaler.tasks

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) of weights, scaling and feature version."""
        tensors = {name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in self._tensors().items()}
        return hash_json({**self._description(), "tensors": tensors})

    def __call__(self, block: FeatureBlock) -> np.ndarray:
        """(n, dimension) float64 representations of feature rows."""
        w = {name: self.weights[name].astype(np.float64) for name in _HIDDEN}
        with one_blas_thread():
            h = np.maximum(self.scaler(block) @ w["w1"] + w["b1"], 0.0)
            h = np.maximum(h @ w["w2"] + w["b2"], 0.0)
        return np.concatenate([h / self.scale, np.ones((len(h), 1))], axis=1)

    def context(self, blocks: Sequence[FeatureBlock], weights: Sequence[float] = (1.0,)) -> Context:
        """The context of one merge step on a target.

        Parameters
        ----------
        blocks
            One row each: the step's features on each target task.
        weights
            Of the tasks, summing to 1. Rewards are linear in z, so the weighted mean of contexts is the context of the
            weighted mean of rewards.
        """
        z = sum(weight * self(block)[0] for block, weight in zip(blocks, weights, strict=True))
        tasks = [(str(block.tasks[0]), float(weight)) for block, weight in zip(blocks, weights, strict=True)]
        return Context(np.asarray(z), self.key, tuple(tasks))

    def _description(self) -> dict[str, Any]:
        return {
            "format": ENCODER_FORMAT,
            "feature_version": self.feature_version,
            "feature_names": list(self.feature_names),
            "tasks": list(self.scaler.tasks),
            "clip": self.scaler.clip,
            "scale": self.scale,
            "training_fingerprint": self.training_fingerprint,
        }

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {"scaler.mean": self.scaler.mean, "scaler.scale": self.scaler.scale}
        tensors |= {name: self.weights[name].astype(np.float32) for name in _HIDDEN}
        return {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}

    def save(self, folder: Location) -> Location:
        """Write `encoder.safetensors` and `encoder.json`; the folder appears complete or not at all."""
        from safetensors.numpy import save_file

        with replaced_folder(located(folder), last=CONFIG_FILE) as temporary:
            save_file(self._tensors(), temporary / WEIGHTS_FILE)
            described = {
                **self._description(),
                "weights_sha256": hash_file(temporary / WEIGHTS_FILE),
                "key": self.key,
            }
            text = json.dumps(described, indent=2, sort_keys=True, allow_nan=False) + "\n"
            (temporary / CONFIG_FILE).write_text(text, encoding="utf-8")
        return located(folder)

    @classmethod
    def load(cls, folder: Location) -> Encoder:
        """Read a saved encoder.

        Raises
        ------
        BanditError
            If a file is missing or damaged, or it is of another format or feature version.
        """

        folder = located(folder)
        try:
            with local_folder(folder, last=CONFIG_FILE) as place:
                return cls._read(place, folder)
        except FileNotFoundError as error:
            raise BanditError(
                f"There is no encoder in {folder}, {CONFIG_FILE} is missing: restore it from a copy, or put the bandit "
                "aside by `simmerge bandit restart`."
            ) from error

    @classmethod
    def _read(cls, place: Path, folder: Location) -> Encoder:
        """From a folder of this machine, which is said to be `folder`."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        for file in (WEIGHTS_FILE, CONFIG_FILE):
            if not (place / file).is_file():
                raise BanditError(
                    f"There is no encoder in {folder}, {file} is missing: restore it from a copy, or put the bandit "
                    "aside by `simmerge bandit restart`."
                )
        try:
            described = json.loads((place / CONFIG_FILE).read_text(encoding="utf-8"))
            if described["format"] != ENCODER_FORMAT or described["feature_version"] != FEATURE_VERSION:
                raise BanditError(
                    f"The encoder in {folder} is of format {described['format']} and feature version "
                    f"{described['feature_version']}, not {ENCODER_FORMAT} and {FEATURE_VERSION}: start a new bandit "
                    "with `simmerge bandit restart`."
                )
            if hash_file(place / WEIGHTS_FILE) != described["weights_sha256"]:
                raise BanditError(f"The weights in {folder} are not those its configuration names: restore the file.")
            tensors = load_file(place / WEIGHTS_FILE)
            found = cls(
                tuple(described["feature_names"]),
                Scaler(tensors["scaler.mean"], tensors["scaler.scale"], described["clip"], tuple(described["tasks"])),
                {name: tensors[name] for name in _HIDDEN},
                described["scale"],
                described["training_fingerprint"],
                described["feature_version"],
            )
            whole = found.key == described["key"]
        except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
            raise BanditError(
                f"The encoder in {folder} is damaged ({type(error).__name__}: {error}): restore it from a copy."
            ) from error
        if not whole:
            raise BanditError(
                f"The encoder in {folder} is not what its key says, so something in it was changed: restore it "
                "from a copy."
            )
        return found


def train_encoder(
    rows: TrainingRows,
    *,
    config: SelectorConfig = ENCODER,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Encoder:
    """Tune an MLP on the validation rows, train it on training and validation rows, and keep its hidden layers (§3.5).

    It stops early on an eighth of the pairs. Rows of split ``test`` are never read.

    Parameters
    ----------
    rows
        Full-information labels from `training_rows`.
    seed
        The same seed and rows give the same bytes, at any number of threads.

    Raises
    ------
    SelectionError, BanditError
        If there are too few pairs, or a pair lies in two splits.
    """
    report = progress or (lambda message, fraction: None)
    refuse_leaks(rows.meta)
    known = rows.of_split("train", "validation")
    pairs = known.pairs
    if len(np.unique(pairs)) < LEAST_PAIRS:
        raise BanditError(
            f"Only {len(np.unique(pairs))} labelled pairs are outside the test split, and a warm start needs at least "
            f"{LEAST_PAIRS}: label more pairs."
        )
    names = config.feature_names()
    block = block_of(known.features, names)
    scaler = Scaler.fit(block, clip=config.clip, encode_task=config.encode_task)
    x = scaler(block)
    y = np.concatenate(Targets.fit(known.utilities).encode(known.utilities), axis=1)
    recipe, batch_size, _ = tune(
        x, y, validation_mask(known.meta), config, seed=seed, progress=lambda f: report("tuning the encoder", 0.7 * f)
    )
    fit = fit_members(
        x,
        y,
        recipes=[recipe],
        held_out=(pair_folds(pairs, _STOPPING_FOLDS, seed=seed) == 0)[None],
        batch_size=batch_size,
        epochs=config.epochs,
        patience=config.patience,
        weight_decay=config.weight_decay,
        seed=seed + 1,
        progress=lambda f: report("training the encoder", 0.7 + 0.3 * f),
    )
    weights = {name: fit.weights[name][0] for name in _HIDDEN}
    raw = Encoder(names, scaler, weights, 1.0, known.fingerprint)(block)[:, :-1]
    scale = float(np.sqrt(np.mean(raw * raw))) or 1.0
    return Encoder(names, scaler, weights, scale, known.fingerprint)
