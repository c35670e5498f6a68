"""From a preset and a seed to the exact recipe of the base and of each expert.

An expert's recipe depends on the seed, its domain and its number alone: the first five experts of a domain in `full`
are those of `demo`, so that a `demo` folder grows into a `full` one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from simmerge_core.demo.domains.generator import seeded
from simmerge_core.demo.lexicon import lexicon
from simmerge_core.demo.presets import Architecture, DemoPreset
from simmerge_core.files import hash_json

# Raised whenever the same recipe would train to other bytes, so that folders of an earlier version are not reused.
RECIPE_VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a checkpoint's bytes, apart from the checkpoint it starts from."""

    checkpoint: str
    domain: str
    seed: int
    architecture: Architecture
    steps: int
    batch: int
    shards: int  # gradients of a step are computed in this many fixed parts and added in order
    rate: float
    cosine: bool
    warmup: int
    decay: float
    frozen: bool
    betas: tuple[float, float]
    clip: float
    prompt_weight: float
    domain_weights: dict[str, float]
    skill_weights: dict[str, dict[str, float]]

    def fingerprint(self, start: str = "") -> str:
        """Hash of the recipe, of the recipe it starts from, and of the words its items are made of."""
        words = sorted(lexicon().texts()) if "multilingual" in self.domain_weights else []
        return hash_json({"version": RECIPE_VERSION, "start": start, "words": words, **self.as_dict()})

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Recipe:
        """Inverse of `as_dict`, after a trip through JSON."""
        architecture = Architecture(**value["architecture"])
        return cls(**{**value, "architecture": architecture, "betas": tuple(value["betas"])})


def base_recipe(preset: DemoPreset, *, seed: int) -> Recipe:
    """Recipe of the base: all domains, constant rate, half trained."""
    return Recipe(
        checkpoint="base",
        domain="",
        seed=seed,
        architecture=preset.architecture,
        steps=preset.base_steps,
        batch=preset.batch,
        shards=2,
        rate=preset.base_rate,
        cosine=False,
        warmup=preset.warmup_steps,
        decay=0.01,
        frozen=False,
        betas=preset.betas,
        clip=preset.clip,
        prompt_weight=preset.prompt_weight,
        domain_weights=dict(zip(preset.domains, preset.base_weights, strict=True)),
        skill_weights={domain: dict.fromkeys(preset.skills_of(domain), 1.0) for domain in preset.domains},
    )


def expert_recipe(preset: DemoPreset, domain: str, number: int, *, seed: int) -> Recipe:
    """Recipe of expert `number` (0, 1, …) of `domain`.

    Rates and decays are dealt in rounds of four that form a Latin square, so that few experts already cover the grid;
    one expert of each round keeps embedding and head frozen.
    """
    deal = seeded(seed, "deal", domain)
    rates, decays, steps = list(preset.expert_rates), list(preset.expert_decays), list(preset.expert_steps)
    for values in (rates, decays, steps):
        deal.shuffle(values)
    frozen_turn = deal.randrange(4)
    rate = rates[number % len(rates)]
    decay = decays[(number + number // len(rates)) % len(decays)]
    rng = seeded(seed, "expert", domain, number)
    replay = rng.choice(preset.replays)
    others = [name for name in preset.domains if name != domain]
    domain_weights = {domain: 1.0 - replay}
    if replay > 0:
        domain_weights.update({name: replay / len(others) for name in others})
    skill_weights = {name: dict.fromkeys(preset.skills_of(name), 1.0) for name in domain_weights}
    for skill in skill_weights[domain]:
        skill_weights[domain][skill] = rng.choice(preset.skill_weights)
    return Recipe(
        checkpoint=f"{domain}-{number + 1:02d}",
        domain=domain,
        seed=seed,
        architecture=preset.architecture,
        steps=steps[number % len(steps)],
        batch=preset.batch,
        shards=1,
        rate=rate,
        cosine=True,
        warmup=preset.warmup_steps,
        decay=min(decay, preset.strongest_shrinkage / rate),
        frozen=number % 4 == (frozen_turn + number // 4) % 4,  # moves on each round: not always the same rate
        betas=preset.betas,
        clip=preset.clip,
        prompt_weight=preset.prompt_weight,
        domain_weights=domain_weights,
        skill_weights=skill_weights,
    )


def expert_recipes(preset: DemoPreset, *, seed: int) -> list[Recipe]:
    """All experts of the preset, domain by domain."""
    return [
        expert_recipe(preset, domain, number, seed=seed)
        for domain in preset.domains
        for number in range(preset.experts_per_domain)
    ]
