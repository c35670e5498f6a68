"""Training of the selector: tuning on validation rows, an ensemble, and networks that hold checkpoints out (§3.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from simmerge_core.errors import SelectionError
from simmerge_core.selector.block import block_of
from simmerge_core.selector.calibration import calibrate
from simmerge_core.selector.config import SelectorConfig
from simmerge_core.selector.coverage import out_of_fold_coverage
from simmerge_core.selector.label_noise import label_noise
from simmerge_core.selector.members import Fit, Recipe, fit_members, forward
from simmerge_core.selector.mlp import Selector, Targets
from simmerge_core.selector.rows import TrainingRows, refuse_leaks
from simmerge_core.selector.scaling import Scaler
from simmerge_core.selector.splits import held_out_checkpoints, pair_folds, validation_mask
from simmerge_core.selector.threads import one_blas_thread

_LEAST_PAIRS = 8


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
        recipe, batch_size, table = tune(
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


def tune(
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
