"""Warm start on logged full-information labels: encoder, posteriors, and tuned exploration (§2.4, §3.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import polars as pl

from simmerge_core.bandit.context import Context
from simmerge_core.bandit.encoder import ENCODER, LEAST_PAIRS, Encoder, train_encoder
from simmerge_core.bandit.policies import POLICIES, LinearBandit
from simmerge_core.bandit.posterior import Posterior
from simmerge_core.errors import BanditError
from simmerge_core.selector.block import block_of
from simmerge_core.selector.config import SelectorConfig
from simmerge_core.selector.rows import TrainingRows

Progress = Callable[[str, float], None]

EXPLORATIONS = (0.001, 0.01, 0.1)
REGULARISATIONS = (1.0, 10.0, 100.0)
LABEL_WEIGHTS = (1.0, 10.0, 100.0)
ROUNDS, SEEDS = 240, 3  # a bandit lives long: over few rounds the best is not to learn at all


@dataclass(frozen=True, slots=True)
class Exploration:
    """The three numbers that a linear bandit is tuned by.

    Attributes
    ----------
    exploration
        Scale of draws or bounds, in units of a reward.
    regularisation
        λ of the prior.
    label_weight
        What a logged label counts against the reward of a round. More than 1 says that a label, which was seen beside
        those of all other actions, tells more about their differences than a reward that was seen alone.
    """

    exploration: float
    regularisation: float
    label_weight: float


DEFAULTS = Exploration(exploration=0.01, regularisation=100.0, label_weight=10.0)
"""Where there are too few labels to tune on: what tuning chooses on the demo catalog of the experiments."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was chosen, and the regret of everything that was tried.

    Attributes
    ----------
    chosen
        The settings with the least mean regret.
    table
        One row per settings: mean regret over shifts and seeds, and per shift.
    shifts
        What was held out: domains, or ``validation`` where there are too few; nothing where nothing was tuned.
    """

    chosen: Exploration
    table: tuple[Mapping[str, Any], ...]
    shifts: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"chosen": asdict(self.chosen), "table": [dict(row) for row in self.table], "shifts": list(self.shifts)}


@dataclass(frozen=True)
class WarmStart:
    """An encoder, a bandit that knows the labels, and how it was tuned."""

    encoder: Encoder
    bandit: LinearBandit
    tuning: Tuning | None


def warm_start(
    rows: TrainingRows,
    *,
    policy: str = "lints",
    exploration: float | None = None,
    regularisation: float | None = None,
    label_weight: float | None = None,
    mixing: float = 0.0,
    reward_range: tuple[float, float] = (0.0, 1.0),
    config: SelectorConfig = ENCODER,
    seed: int = 0,
    progress: Progress | None = None,
) -> WarmStart:
    """Start a bandit on logged labels; rows of split ``test`` are never read.

    Parameters
    ----------
    rows
        Full-information labels from `training_rows`.
    policy
        A name in `POLICIES`.
    exploration, regularisation, label_weight
        As in `Exploration`; what is None is tuned (`tuned_exploration`).

    Raises
    ------
    BanditError, SelectionError
        If the policy is unknown, there are too few pairs, or a label lies outside the range of rewards.
    """
    if policy not in POLICIES:
        raise BanditError(f"There is no policy {policy!r}: choose among {', '.join(POLICIES)}.")
    known = rows.of_split("train", "validation")
    outside = ~((known.utilities >= reward_range[0]) & (known.utilities <= reward_range[1]))
    if outside.any():
        raise BanditError(
            f"A label is {known.utilities[outside][0]:g}, outside the reward range {list(reward_range)}: declare the "
            "range of the metrics as bandit.reward_range in the catalog."
        )
    report = progress or (lambda message, fraction: None)
    given = (exploration, regularisation, label_weight)
    tuning = None
    if any(value is None for value in given):
        tuning = tuned_exploration(
            known,
            policy=policy,
            explorations=EXPLORATIONS if exploration is None else (exploration,),
            regularisations=REGULARISATIONS if regularisation is None else (regularisation,),
            label_weights=LABEL_WEIGHTS if label_weight is None else (label_weight,),
            config=config,
            seed=seed,
            progress=lambda message, fraction: report(message, 0.8 * fraction),
        )
        settings = tuning.chosen
    else:
        settings = Exploration(*(float(value) for value in given if value is not None))
    encoder = train_encoder(
        known, config=config, seed=seed, progress=lambda message, fraction: report(message, 0.8 + 0.2 * fraction)
    )
    bandit = POLICIES[policy](
        list(map(str, known.actions)),
        encoder.dimension,
        exploration=settings.exploration,
        regularisation=settings.regularisation,
        mixing=mixing,
        reward_range=reward_range,
        seed=seed,
        source=encoder.key,
        posterior=_anchored(encoder, known, settings),
    )
    return WarmStart(encoder, bandit, tuning)


def _anchored(encoder: Encoder, rows: TrainingRows, settings: Exploration) -> Posterior:
    posterior = Posterior.prior(len(rows.actions), encoder.dimension, regularisation=settings.regularisation)
    z = encoder(block_of(rows.features, encoder.feature_names))
    posterior.observe(z, rows.utilities, weight=settings.label_weight)
    return posterior


def tuned_exploration(
    rows: TrainingRows,
    *,
    policy: str,
    explorations: Sequence[float] = EXPLORATIONS,
    regularisations: Sequence[float] = REGULARISATIONS,
    label_weights: Sequence[float] = LABEL_WEIGHTS,
    rounds: int = ROUNDS,
    seeds: int = SEEDS,
    config: SelectorConfig = ENCODER,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuning:
    """Choose what regrets least when a domain arrives that the labels knew nothing of (§3.5).

    A bandit is for the shift that it will meet, so that is what it is tuned on: each domain in turn is taken out of
    the logged labels, encoder and posteriors are fitted to the rest, and merges with its checkpoints come as rounds,
    whose rewards are the labels. With fewer than three domains, where taking one out leaves no pair of expert and
    auxiliary, the validation rows come as rounds instead; with too few labels for that, nothing is tuned and `DEFAULTS`
    hold.

    Parameters
    ----------
    rounds, seeds
        Length and number of the simulated runs per shift.
    """
    report = progress or (lambda message, fraction: None)
    shifts = _shifts(rows)
    grid = [Exploration(*values) for values in product(explorations, regularisations, label_weights)]
    if not shifts:
        axes = zip(asdict(DEFAULTS).values(), (explorations, regularisations, label_weights), strict=True)
        return Tuning(Exploration(*(usual if usual in axis else axis[0] for usual, axis in axes)), (), ())
    regrets = np.zeros((len(grid), len(shifts)))
    names = []
    for number, (name, warm, stream, new_task) in enumerate(shifts):
        report(f"tuning without {name}", number / len(shifts))
        encoder = train_encoder(warm, config=config, seed=seed)
        z = encoder(block_of(stream.features, encoder.feature_names))
        tasks = stream.meta["task"].to_list()
        contexts = [Context(row, tasks=((task, 1.0),)) for row, task in zip(z, tasks, strict=True)]
        anchored: dict[tuple[float, float], Posterior] = {}
        for row, settings in enumerate(grid):
            key = (settings.regularisation, settings.label_weight)
            if key not in anchored:
                anchored[key] = _anchored(encoder, warm, settings)
            regrets[row, number] = np.mean(
                [
                    _simulated_regret(
                        policy, settings, anchored[key], contexts, stream.utilities, rounds, new_task=new_task, seed=s
                    )
                    for s in range(seeds)
                ]
            )
        names.append(name)
    table = [
        {**asdict(settings), "regret": float(values.mean()), **dict(zip(names, values.tolist(), strict=True))}
        for settings, values in zip(grid, regrets, strict=True)
    ]
    # Differences in the fourth digit are none; of settings that are alike, the one that explores most also learns most.
    best = min(range(len(grid)), key=lambda row: (round(float(regrets[row].mean()), 3), -grid[row].exploration))
    return Tuning(grid[best], tuple(table), tuple(names))


def _simulated_regret(
    policy: str,
    settings: Exploration,
    anchored: Posterior,
    contexts: Sequence[Context],
    utilities: np.ndarray,
    rounds: int,
    *,
    new_task: str | None,
    seed: int,
) -> float:
    arms = [str(arm) for arm in range(utilities.shape[1])]
    bandit = POLICIES[policy](
        arms,
        anchored.dimension,
        exploration=settings.exploration,
        regularisation=settings.regularisation,
        reward_range=(float(utilities.min()) - 1.0, float(utilities.max()) + 1.0),
        seed=seed,
        posterior=anchored.copy(),
    )
    if new_task is not None:
        bandit.add_task(new_task)
    order = np.random.default_rng(seed).permutation(len(contexts))[:rounds]
    regret = 0.0
    for number, at in enumerate(order):
        arm = bandit.draw(contexts[at], round_id=str(number))
        regret += utilities[at].max() - utilities[at, arm]
        bandit.update(contexts[at], arms[arm], float(utilities[at, arm]))
    return float(regret)


def _shifts(rows: TrainingRows) -> list[tuple[str, TrainingRows, TrainingRows, str | None]]:
    """Name, rows known before, rows that come as rounds, and the task that is new, of each simulated shift."""
    domain_a, domain_b, task = (rows.meta[name] for name in ("a_domain", "b_domain", "task"))
    # As in the rounds of a single task: where a side holds the expert, it is a.
    as_asked = (domain_a == task) | (domain_b != task)
    found = []
    for domain in sorted(set(domain_a.to_list())):
        touches = (domain_a == domain) | (domain_b == domain)
        warm, stream = rows.filter(~touches & (task != domain)), rows.filter(touches & as_asked)
        if _enough(warm) and len(stream):
            found.append((domain, warm, stream, domain))
    if found:
        return found
    validation = rows.meta["split"] == "validation"
    warm, stream = rows.filter(~validation), rows.filter(validation & as_asked)
    return [("validation", warm, stream, None)] if _enough(warm) and len(stream) else []


def _enough(rows: TrainingRows) -> bool:
    pairs = rows.meta.select(pl.min_horizontal("a", "b").alias("a"), pl.max_horizontal("a", "b").alias("b"))
    return pairs.n_unique() >= LEAST_PAIRS and rows.meta["a_domain"].n_unique() >= 2
