"""The selector: an ensemble of two-layer MLPs that predicts a merge's utility under every action (§2.3.1, §3.5)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.errors import OperatorError, SelectionError
from simmerge_core.features.columns import FEATURE_VERSION
from simmerge_core.files import hash_file, hash_json, replaced_folder
from simmerge_core.operators.actions import Action, parse_action
from simmerge_core.selector.block import FeatureBlock, block_of
from simmerge_core.selector.calibration import Calibration
from simmerge_core.selector.config import SelectorConfig
from simmerge_core.selector.label_noise import LabelNoise
from simmerge_core.selector.members import LAYERS, forward
from simmerge_core.selector.prediction import Prediction
from simmerge_core.selector.scaling import Scaler
from simmerge_core.selector.threads import one_blas_thread
from simmerge_core.storage import Location, is_complete, local_folder, located

WEIGHTS_FILE, CONFIG_FILE, METRICS_FILE = "selector.safetensors", "config.json", "metrics.json"
SELECTOR_FORMAT = 3
_CHUNK = 512  # rows per product: hidden layers of one chunk stay in the cache


@dataclass(frozen=True)
class Targets:
    """Û = level + differences, each standardised: what decides is the difference, what ranks plans is the level too."""

    level_mean: float
    level_scale: float
    difference_mean: np.ndarray  # (actions,)
    difference_scale: float

    @classmethod
    def fit(cls, utilities: np.ndarray) -> Targets:
        """Statistics of (n, actions) training utilities; the zero prediction is then the mean of each action."""
        level = utilities.mean(axis=1)
        difference = utilities - level[:, None]
        centre = difference.mean(axis=0)
        # One scale for all actions: scaling each by its own would let rare, small differences weigh like large ones.
        spread = float(np.sqrt(np.mean((difference - centre) ** 2)))
        return cls(float(level.mean()), float(level.std()) or 1.0, centre, spread or 1.0)

    def encode(self, utilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, 1) level and (n, actions) differences."""
        level = utilities.mean(axis=1, keepdims=True)
        difference = (utilities - level - self.difference_mean) / self.difference_scale
        return (level - self.level_mean) / self.level_scale, difference

    def decode(self, level: np.ndarray, difference: np.ndarray) -> np.ndarray:
        """Utilities (…, n, actions); differences are centred over the actions first."""
        centred = difference - difference.mean(axis=-1, keepdims=True)
        return self.level_mean + self.level_scale * level + self.difference_mean + self.difference_scale * centred


@dataclass(frozen=True)
class Selector:
    """A trained f_plan.

    Attributes
    ----------
    networks
        ``level`` and ``difference``, or ``shared``, each the stacked float32 weights of the ensemble.
    metrics
        What tuning and the out-of-fold predictions gave; JSON-ready.
    training_fingerprint
        Content hash of the rows it was trained on.
    calibration
        What turns predictions into intervals.
    unseen_calibration
        The same for merges with a checkpoint that is not among `checkpoints`; `calibration` itself where there were too
        few checkpoints to make one (``folds`` is 0 in ``metrics["interval_coverage"]["unseen"]``).
    checkpoints
        Sorted ids of the checkpoints that it was trained on.
    noise
        Noise of the labels by task: a fact about them, not about what is predicted, and so no part of `key`.
    """

    config: SelectorConfig
    seed: int
    actions: tuple[Action, ...]
    feature_names: tuple[str, ...]
    scaler: Scaler
    targets: Targets
    networks: Mapping[str, Mapping[str, np.ndarray]]
    metrics: dict[str, Any]
    training_fingerprint: str
    calibration: Calibration
    unseen_calibration: Calibration
    checkpoints: tuple[str, ...]
    noise: Mapping[str, LabelNoise]
    name: str = "simmerge"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that have a code; others are encoded as zeros."""
        return self.scaler.tasks

    @property
    def key(self) -> str:
        """SHA-256 (hex) of weights, scaling, configuration and calibration."""
        return hash_json({"description": self._description(), "tensors": _tensor_hashes(self._tensors())})

    def predict(self, features: pl.DataFrame) -> Prediction:
        """Predict every action's utility for the rows of a `pairwise_features` frame with `task`.

        Half-widths of rows that hold an unseen checkpoint are those of `unseen_calibration`.

        Raises
        ------
        SelectionError
            If a feature column is missing or a value is not finite.
        """
        found = self.predict_block(block_of(features, self.feature_names))
        seen, new = (c.half_width(found.uncertainty) for c in (self.calibration, self.unseen_calibration))
        return replace(found, half_width=np.where(self.holds_unseen(features)[:, None], new, seen))

    def holds_unseen(self, features: pl.DataFrame) -> np.ndarray:
        """(n,) bool: whether a or b of each row is not among `checkpoints`."""
        return ~(features["a"].is_in(self.checkpoints) & features["b"].is_in(self.checkpoints)).to_numpy()

    def calibration_of(self, checkpoints: Collection[str]) -> Calibration:
        """What turns predictions for merges of these checkpoints into intervals."""
        return self.calibration if set(checkpoints) <= set(self.checkpoints) else self.unseen_calibration

    def predict_block(self, block: FeatureBlock) -> Prediction:
        """Predict for rows given as arrays; arithmetic in float64. Half-widths are those for known checkpoints."""
        members = self.member_utilities(block)
        spread = members.std(axis=0)
        return Prediction(members.mean(axis=0), spread, members, self.calibration.half_width(spread))

    def member_utilities(self, block: FeatureBlock) -> np.ndarray:
        """(members, n, actions) utilities of each network."""
        return self.utilities_of(self.scaler(block))

    def utilities_of(self, x: np.ndarray) -> np.ndarray:
        """(members, n, actions) utilities of each network for inputs (n, scaler.width) as the scaler makes them."""
        with one_blas_thread():
            parts = [self._utilities(x[start : start + _CHUNK]) for start in range(0, max(len(x), 1), _CHUNK)]
        return np.concatenate(parts, axis=1)

    @cached_property
    def _wide(self) -> dict[str, dict[str, np.ndarray]]:
        """The networks in float64, converted once."""
        return {n: {layer: w.astype(np.float64) for layer, w in ws.items()} for n, ws in self.networks.items()}

    def _utilities(self, x: np.ndarray) -> np.ndarray:
        if "shared" in self._wide:
            output = forward(self._wide["shared"], x)
            return self.targets.decode(output[..., :1], output[..., 1:])
        return self.targets.decode(forward(self._wide["level"], x), forward(self._wide["difference"], x))

    def _description(self) -> dict[str, Any]:
        return {
            "format": SELECTOR_FORMAT,
            "feature_version": FEATURE_VERSION,
            "config": self.config.as_json(),
            "seed": self.seed,
            "actions": [str(a) for a in self.actions],
            "feature_names": list(self.feature_names),
            "tasks": list(self.scaler.tasks),
            "clip": self.scaler.clip,
            "level_mean": self.targets.level_mean,
            "level_scale": self.targets.level_scale,
            "difference_scale": self.targets.difference_scale,
            "networks": sorted(self.networks),
            "training_fingerprint": self.training_fingerprint,
            "calibration": self.calibration.as_json(),
            "unseen_calibration": self.unseen_calibration.as_json(),
            "checkpoints": list(self.checkpoints),
        }

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {
            "scaler.mean": self.scaler.mean,
            "scaler.scale": self.scaler.scale,
            "targets.difference_mean": self.targets.difference_mean,
        }
        for network, weights in self.networks.items():
            for layer in LAYERS:
                tensors[f"{network}.{layer}"] = weights[layer].astype(np.float32)
        return {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}

    def save(self, folder: Location) -> Location:
        """Write `selector.safetensors`, `config.json` and `metrics.json`; the folder appears complete or not at all."""
        from safetensors.numpy import save_file

        with replaced_folder(located(folder), last=CONFIG_FILE) as temporary:
            save_file(self._tensors(), temporary / WEIGHTS_FILE)
            description = {
                **self._description(),
                "weights_sha256": hash_file(temporary / WEIGHTS_FILE),
                "key": self.key,
                "noise": {task: asdict(noise) for task, noise in self.noise.items()},
            }
            for file, value in ((CONFIG_FILE, description), (METRICS_FILE, self.metrics)):
                text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
                (temporary / file).write_text(text, encoding="utf-8")
        return located(folder)

    @staticmethod
    def is_in(folder: Location) -> bool:
        """Whether there is a selector in a folder, sound or not."""
        return is_complete(folder, CONFIG_FILE)

    @classmethod
    def load(cls, folder: Location) -> Selector:
        """Read a saved selector; it predicts the same numbers as the one that was saved.

        Raises
        ------
        SelectionError
            If a file is missing or damaged, or the selector is of another format or feature version.
        """

        folder = located(folder)
        try:
            with local_folder(folder, last=CONFIG_FILE) as place:
                return cls._read(place, folder)
        except FileNotFoundError as error:
            raise SelectionError(
                f"There is no selector in {folder}, {CONFIG_FILE} is missing: train one first."
            ) from error

    @classmethod
    def _read(cls, place: Path, folder: Location) -> Selector:
        """From a folder of this machine, which is said to be `folder`."""
        from safetensors.numpy import load_file

        for file in (WEIGHTS_FILE, CONFIG_FILE, METRICS_FILE):
            if not (place / file).is_file():
                raise SelectionError(f"There is no selector in {folder}: {file} is missing; train one first.")
        try:
            described = json.loads((place / CONFIG_FILE).read_text(encoding="utf-8"))
            metrics = json.loads((place / METRICS_FILE).read_text(encoding="utf-8"))
        except ValueError as error:  # no JSON, or not UTF-8
            raise SelectionError(
                f"The selector in {folder} has a damaged JSON file ({error}): train it again."
            ) from error
        if not isinstance(described, dict):
            raise SelectionError(f"The selector in {folder} has a damaged {CONFIG_FILE}: train it again.")
        if described.get("format") != SELECTOR_FORMAT or described.get("feature_version") != FEATURE_VERSION:
            raise SelectionError(
                f"The selector in {folder} is of format {described.get('format')} and feature version "
                f"{described.get('feature_version')}, not {SELECTOR_FORMAT} and {FEATURE_VERSION}: train it again, "
                "by materializing selector or by `simmerge demo`."
            )
        if hash_file(place / WEIGHTS_FILE) != described.get("weights_sha256"):
            raise SelectionError(
                f"The weights in {folder} are not those its configuration names: train the selector again."
            )
        try:
            found = cls._from_parts(described, metrics, load_file(place / WEIGHTS_FILE))
            whole = found.key == described["key"] and len(found.calibration.actions) == len(found.actions)
        except (KeyError, TypeError, ValueError, AttributeError, OperatorError) as error:
            raise SelectionError(
                f"The selector in {folder} is damaged ({type(error).__name__}: {error}): train it again."
            ) from error
        if not whole:
            raise SelectionError(
                f"The selector in {folder} is not what its key says, so something in it was changed: train it again."
            )
        return found

    @classmethod
    def _from_parts(
        cls, described: Mapping[str, Any], metrics: dict[str, Any], tensors: Mapping[str, np.ndarray]
    ) -> Selector:
        """From a configuration, metrics and tensors as `save` writes them."""
        return cls(
            config=SelectorConfig.from_json(described["config"]),
            seed=described["seed"],
            actions=tuple(map(parse_action, described["actions"])),
            feature_names=tuple(described["feature_names"]),
            scaler=Scaler(
                tensors["scaler.mean"], tensors["scaler.scale"], described["clip"], tuple(described["tasks"])
            ),
            targets=Targets(
                described["level_mean"],
                described["level_scale"],
                tensors["targets.difference_mean"],
                described["difference_scale"],
            ),
            networks={name: {layer: tensors[f"{name}.{layer}"] for layer in LAYERS} for name in described["networks"]},
            metrics=metrics,
            training_fingerprint=described["training_fingerprint"],
            calibration=Calibration.from_json(described["calibration"]),
            unseen_calibration=Calibration.from_json(described["unseen_calibration"]),
            checkpoints=tuple(described["checkpoints"]),
            noise={task: LabelNoise(**noise) for task, noise in described["noise"].items()},
        )


def _tensor_hashes(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    import hashlib

    return {name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in tensors.items()}
