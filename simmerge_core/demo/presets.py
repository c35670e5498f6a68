"""The sizes in which the demo catalog can be built, and the recipe values that all of them share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from simmerge_core.demo.domains import DOMAINS

DOMAIN_NAMES = ("math", "code", "multilingual", "rag", "instruct")


@dataclass(frozen=True)
class Architecture:
    """Shape of the Llama decoder that base and experts share (untied, no biases)."""

    hidden: int
    layers: int
    heads: int
    mlp: int
    positions: int = 128
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    initial_std: float = 0.05


@dataclass(frozen=True)
class DemoPreset:
    """One size of the demo catalog.

    Parameters
    ----------
    experts_per_domain
        Experts tuned for each of `domains`.
    base_steps, batch
        Optimizer steps of the base, and items per step (base and experts alike).
    base_weights
        Share of each domain in the base's batches, in the order of `domains`; the base is deliberately left half
        trained so that experts have something to gain.
    expert_steps, expert_rates, expert_decays
        Values an expert's steps, peak learning rate and decoupled weight decay are drawn from. Their spread is what
        makes the operators differ: it is designed in.
    probes, items
        Probe prompts, and items in each of the evaluation sets A and B, per task.
    """

    name: str
    architecture: Architecture
    domains: tuple[str, ...]
    experts_per_domain: int
    base_steps: int
    batch: int
    base_weights: tuple[float, ...]
    expert_steps: tuple[int, ...]
    probes: int
    items: int
    base_rate: float = 3e-3
    expert_rates: tuple[float, ...] = (2e-3, 4e-3, 6e-3, 9e-3)
    expert_decays: tuple[float, ...] = (0.0, 0.0, 0.5, 1.5)
    strongest_shrinkage: float = 9e-3  # bound of rate * decay: beyond it an expert forgets its base altogether
    replays: tuple[float, ...] = (0.0, 0.0, 0.15)
    skill_weights: tuple[float, ...] = (0.2, 1.0, 1.0, 2.0)
    warmup_steps: int = 20
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    prompt_weight: float = 0.1
    merge_sizes: tuple[tuple[str, int], ...] = ()  # (target task, k) of the example merge requests
    skills: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (domain, its sub-skills) where not all of them are used
    labels: tuple[tuple[str, Any], ...] = ()  # settings of `catalog.LabelDesign` that differ from its defaults
    action_sets: tuple[tuple[str, tuple[str, ...]], ...] = ()  # named sets beyond ``paper`` and ``extended``

    def skills_of(self, domain: str) -> tuple[str, ...]:
        """Sub-skills of a domain that this preset uses."""
        return dict(self.skills).get(domain) or tuple(DOMAINS[domain])


_SMALL = Architecture(hidden=64, layers=4, heads=4, mlp=192)
_FIVE_WEIGHTS = (1.4, 0.6, 1.2, 1.4, 0.35)
_REQUESTS = (("math", 2), ("rag", 3), ("code", 4))


def _five_domains(name: str, *, experts_per_domain: int, items: int) -> DemoPreset:
    return DemoPreset(
        name=name,
        architecture=_SMALL,
        domains=DOMAIN_NAMES,
        experts_per_domain=experts_per_domain,
        base_steps=1700,
        batch=64,
        base_weights=_FIVE_WEIGHTS,
        expert_steps=(120, 200, 300),
        probes=64,
        items=items,
        merge_sizes=_REQUESTS,
    )


# What the experiments choose among when they ask which few actions carry the headroom (ARCHITECTURE.md, "Actions").
WIDE_ACTIONS = (
    *("linear@0.5", "linear@0.3", "linear@0.7"),
    *("slerp@0.5", "slerp@0.3", "slerp@0.7"),
    "ties@0.5",
    *(f"task_arithmetic@0.5,lam={lam}" for lam in (0.2, 0.45)),
    *("task_arithmetic@0.5", "task_arithmetic@0.3", "task_arithmetic@0.7"),
    *(f"norm_balanced@0.5,weight={weight}" for weight in (0.5, 0.9)),
    *("norm_balanced@0.5", "norm_balanced@0.3", "norm_balanced@0.7"),
    *(f"rescaled_arithmetic@0.5,lam={lam}" for lam in (0.3, 0.6)),
    *("rescaled_arithmetic@0.5", "rescaled_arithmetic@0.3", "rescaled_arithmetic@0.7"),
    *("ties_task_vector@0.5", "dare@0.5", "breadcrumbs@0.5", "model_stock@0.5"),
)

PRESETS: dict[str, DemoPreset] = {
    # Sub-skills that a model of 40 thousand parameters learns within seconds, so that experts really are experts.
    "tiny": DemoPreset(
        name="tiny",
        architecture=Architecture(hidden=32, layers=2, heads=2, mlp=96, initial_std=0.1),
        domains=("math", "code", "instruct"),
        experts_per_domain=2,
        base_steps=400,
        batch=32,
        base_weights=(2.5, 0.6, 1.4),
        expert_steps=(60, 80),
        probes=16,
        items=40,
        base_rate=1e-2,
        expert_rates=(4e-3, 6e-3, 8e-3, 1e-2),
        warmup_steps=10,
        merge_sizes=(("math", 2), ("instruct", 3), ("code", 3)),
        skills=(("math", ("largest",)), ("code", ("length", "truth")), ("instruct", ("upper", "ends"))),
    ),
    # Labels are most of the time: 80 items a set keep the whole demo near a quarter of an hour on two cores.
    "demo": _five_domains("demo", experts_per_domain=5, items=80),
    # As many configurations as the paper's comparison needs (§3.2): 110 of three checkpoints, 65 of four.
    "full": replace(
        _five_domains("full", experts_per_domain=6, items=200),
        labels=(("auxiliary_auxiliary", 0.15), ("multiway", {3: 22, 4: 13})),
        action_sets=(("wide", WIDE_ACTIONS),),
    ),
    # The same recipe at six times the parameters: what a selector of the small catalog is transferred to (§4.4). A wider
    # model learns more per step and bears smaller rates.
    "larger": replace(
        _five_domains("larger", experts_per_domain=4, items=120),
        architecture=Architecture(hidden=128, layers=6, heads=4, mlp=384),
        base_steps=1000,
        base_rate=2e-3,
        expert_steps=(80, 140, 200),
        expert_rates=(1.3e-3, 2.6e-3, 4e-3, 6e-3),
        labels=(("multiway", {3: 8, 4: 0}),),
    ),
}
