"""The selector: an ensemble of two-layer MLPs that predicts a merge's utility under every action (§2.3.1, §3.5)."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.errors import OperatorError, SelectionError
from simmerge_core.features.columns import FEATURE_VERSION
from simmerge_core.files import hash_file, hash_json, replaced_folder
from simmerge_core.operators.actions import Action, parse_action
from simmerge_core.selector.block import FeatureBlock, block_of
from simmerge_core.selector.calibration import Calibration, calibrate
from simmerge_core.selector.config import SelectorConfig
from simmerge_core.selector.coverage import out_of_fold_coverage
from simmerge_core.selector.label_noise import LabelNoise, label_noise
from simmerge_core.selector.members import LAYERS, Fit, Recipe, fit_members, forward
from simmerge_core.selector.prediction import Prediction
from simmerge_core.selector.rows import TrainingRows, refuse_leaks
from simmerge_core.selector.scaling import Scaler
from simmerge_core.selector.splits import held_out_checkpoints, pair_folds, validation_mask
from simmerge_core.selector.threads import one_blas_thread

WEIGHTS_FILE, CONFIG_FILE, METRICS_FILE = "selector.safetensors", "config.json", "metrics.json"
SELECTOR_FORMAT = 3
_CHUNK = 512  # rows per product: hidden layers of one chunk stay in the cache
_LEAST_PAIRS = 8


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

    def save(self, folder: Path) -> Path:
        """Write `selector.safetensors`, `config.json` and `metrics.json`; the folder appears complete or not at all."""
        from safetensors.numpy import save_file

        with replaced_folder(Path(folder)) as temporary:
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
        return Path(folder)

    @classmethod
    def load(cls, folder: Path) -> Selector:
        """Read a saved selector; it predicts the same numbers as the one that was saved.

        Raises
        ------
        SelectionError
            If a file is missing or damaged, or the selector is of another format or feature version.
        """
        from safetensors.numpy import load_file

        folder = Path(folder)
        for file in (WEIGHTS_FILE, CONFIG_FILE, METRICS_FILE):
            if not (folder / file).is_file():
                raise SelectionError(f"There is no selector in {folder}: {file} is missing; train one first.")
        try:
            described = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
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
        if hash_file(folder / WEIGHTS_FILE) != described.get("weights_sha256"):
            raise SelectionError(
                f"The weights in {folder} are not those its configuration names: train the selector again."
            )
        try:
            found = cls._from_parts(described, metrics, load_file(folder / WEIGHTS_FILE))
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


def train(
    rows: TrainingRows,
    *,
    config: SelectorConfig | None = None,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Selector:
    """Tune on the validation rows, then train the ensemble on training and validation rows together (§3.5).

    Every member holds out its own share of the pairs and stops early on it, so that all labelled pairs outside the
    test split are learned from and none is judged by a network that fitted it. Rows of split ``test`` are never read.

    Further networks, one per fold of checkpoints, hold out every row that touches the fold. They serve the intervals
    for unseen checkpoints and are not kept.

    Parameters
    ----------
    rows
        From `training_rows`; without validation rows a share of the training pairs takes their place.
    seed
        The same seed and rows give the same bytes, at any number of threads.

    Raises
    ------
    SelectionError
        If there are too few training pairs, or a pair lies in two splits.
    """
    config = config or SelectorConfig()
    report = progress or (lambda message, fraction: None)
    refuse_leaks(rows.meta)
    known = rows.of_split("train", "validation")
    pairs = known.pairs
    least = max(_LEAST_PAIRS, config.members)  # every member holds out at least one pair
    if len(np.unique(pairs)) < least:
        raise SelectionError(
            f"Only {len(np.unique(pairs))} labelled pairs are outside the test split, and this selector needs at least "
            f"{least}: label more pairs."
        )
    if len(known.actions) < 2:
        raise SelectionError("There is nothing to choose with fewer than two actions: label more actions.")
    names = config.feature_names()
    block = block_of(known.features, names)
    scaler = Scaler.fit(block, clip=config.clip, encode_task=config.encode_task)
    targets = Targets.fit(known.utilities)
    x = scaler(block)
    level, difference = targets.encode(known.utilities)
    validation = validation_mask(known.meta)
    folds = pair_folds(pairs, config.members, seed=seed)
    jobs = (
        {"level": level, "difference": difference}
        if config.heads == "separate"
        else {"shared": np.concatenate([level, difference], axis=1)}
    )
    touched = held_out_checkpoints(known.meta, config.unseen_folds, least_pairs=_LEAST_PAIRS)  # (F, n)
    networks: dict[str, dict[str, np.ndarray]] = {}
    outputs: dict[str, np.ndarray] = {}
    unseen_outputs: dict[str, np.ndarray] = {}
    metrics: dict[str, Any] = {}
    for number, (name, y) in enumerate(jobs.items()):
        start, share = number / len(jobs), 1.0 / len(jobs)
        recipe, batch_size, table = _tune(
            x, y, validation, config, seed=seed, progress=_part(report, "tuning", start, 0.6 * share)
        )
        fitted = partial(
            fit_members,
            x,
            y,
            batch_size=batch_size,
            epochs=config.epochs,
            patience=config.patience,
            weight_decay=config.weight_decay,
        )
        fit = fitted(
            recipes=[recipe] * config.members,
            held_out=np.stack([folds == m for m in range(config.members)]),
            seed=seed + 1,
            progress=_part(report, "training the ensemble", start + 0.6 * share, 0.25 * share),
        )
        networks[name] = fit.weights
        with one_blas_thread():
            outputs[name] = forward(fit.weights, x)  # (members, n, o)
        metrics[name] = _described(fit, recipe, batch_size, table)
        if len(touched):
            # Their own call and seed: the ensemble is the same with and without them.
            without = fitted(
                recipes=[recipe] * len(touched),
                held_out=touched,
                seed=seed + 2,
                progress=_part(report, "holding out checkpoints", start + 0.85 * share, 0.15 * share),
            )
            with one_blas_thread():
                unseen_outputs[name] = forward(without.weights, x)  # (F, n, o)
    members = _decoded(targets, outputs)  # (members, n, actions)
    # Each row by the network that held it out.
    metrics["out_of_fold"] = _out_of_fold(known.utilities, members[folds, np.arange(len(x))])
    metrics["rows"] = {"fitted": len(known), "pairs": len(np.unique(pairs)), **known.dropped}
    level_asked = config.interval_level
    calibration = unseen_calibration = calibrate(known, members, folds, level=level_asked)
    measured: dict[str, Any] = {"folds": len(touched)}
    if len(touched):
        # A merge of two folds was held out by two networks: it is there once for each.
        fold, at = np.nonzero(touched)
        held, without_them = known.take(at), _decoded(targets, unseen_outputs)[:, at]
        unseen_calibration = calibrate(held, without_them, fold, level=level_asked, adaptive=False)
        measured |= out_of_fold_coverage(held, without_them, fold, level=level_asked, adaptive=False)
    metrics["interval_coverage"] = {
        "level": level_asked,
        **out_of_fold_coverage(known, members, folds, level=level_asked),
        "unseen": measured,
    }
    return Selector(
        config=config,
        seed=seed,
        actions=known.actions,
        feature_names=names,
        scaler=scaler,
        targets=targets,
        networks=networks,
        metrics=metrics,
        training_fingerprint=known.fingerprint,
        calibration=calibration,
        unseen_calibration=unseen_calibration,
        checkpoints=tuple(sorted({*known.meta["a"].to_list(), *known.meta["b"].to_list()})),
        noise=label_noise(known),
    )


def _decoded(targets: Targets, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """(networks, n, actions) utilities from the outputs (networks, n, o) of each head."""
    if "shared" in outputs:
        return targets.decode(outputs["shared"][..., :1], outputs["shared"][..., 1:])
    return targets.decode(outputs["level"], outputs["difference"])


def _part(report: Callable[[str, float], None], message: str, start: float, share: float) -> Callable[[float], None]:
    def step(fraction: float) -> None:
        report(message, start + share * fraction)

    return step


def _share(progress: Callable[[float], None], start: float, share: float) -> Callable[[float], None]:
    def step(fraction: float) -> None:
        progress(start + share * fraction)

    return step


def _tune(
    x: np.ndarray,
    y: np.ndarray,
    validation: np.ndarray,
    config: SelectorConfig,
    *,
    seed: int,
    progress: Callable[[float], None],
) -> tuple[Recipe, int, list[dict[str, float]]]:
    """The recipe and batch size with the least validation loss, and every combination's loss."""
    grid = [Recipe(w, r, d) for w, r, d in product(config.widths, config.learning_rates, config.dropouts)]
    if len(grid) * len(config.batch_sizes) == 1:
        return grid[0], config.batch_sizes[0], []
    table: list[dict[str, float]] = []
    best: tuple[float, Recipe, int] | None = None
    for number, batch_size in enumerate(config.batch_sizes):
        repeated = [recipe for recipe in grid for _ in range(config.tuning_members)]
        fit = fit_members(
            x,
            y,
            recipes=repeated,
            held_out=np.broadcast_to(validation, (len(repeated), len(validation))),
            batch_size=batch_size,
            epochs=config.epochs,
            patience=config.patience,
            weight_decay=config.weight_decay,
            seed=seed,
            progress=_share(progress, number / len(config.batch_sizes), 1.0 / len(config.batch_sizes)),
        )
        losses = fit.loss.reshape(len(grid), config.tuning_members).mean(axis=1)
        for recipe, loss in zip(grid, losses.tolist(), strict=True):
            table.append(
                {
                    "width": recipe.width,
                    "learning_rate": recipe.learning_rate,
                    "dropout": recipe.dropout,
                    "batch_size": batch_size,
                    "loss": loss,
                }
            )
            if best is None or loss < best[0]:
                best = (loss, recipe, batch_size)
    assert best is not None
    return best[1], best[2], table


def _described(fit: Fit, recipe: Recipe, batch_size: int, table: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "width": recipe.width,
        "learning_rate": recipe.learning_rate,
        "dropout": recipe.dropout,
        "batch_size": batch_size,
        "epochs": fit.epoch.tolist(),
        "held_out_loss": fit.loss.tolist(),
        "tuning": table,
    }


def _out_of_fold(utilities: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Choices on rows by networks that never fitted them, against the best fixed action and the best per row."""
    chosen = utilities[np.arange(len(utilities)), predicted.argmax(axis=1)]
    centred = utilities - utilities.mean(axis=1, keepdims=True)
    difference = predicted - predicted.mean(axis=1, keepdims=True)
    return {
        "utility": float(chosen.mean()),
        "best_fixed": float(utilities.mean(axis=0).max()),
        "oracle": float(utilities.max(axis=1).mean()),
        "accuracy": float(np.mean(chosen >= utilities.max(axis=1) - 1e-12)),
        "level_rmse": float(np.sqrt(np.mean((utilities - predicted).mean(axis=1) ** 2))),
        "difference_rmse": float(np.sqrt(np.mean((centred - difference) ** 2))),
    }
