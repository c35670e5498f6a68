"""The training loop: packed batches, one flat parameter buffer, AdamW.

Same recipe -> same bytes: a step's items depend on (seed, checkpoint, step, shard) alone, every reduction is done by
one thread, and the parts of a step's gradient are added in a fixed order, whoever computed them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from simmerge_core.demo.domains.generator import seeded
from simmerge_core.demo.engine import Engine
from simmerge_core.demo.items import draw_batch
from simmerge_core.demo.layout import embedding_parameters, parameter_count, parameter_shapes
from simmerge_core.demo.packing import pack
from simmerge_core.demo.recipes import Recipe
from simmerge_core.demo.tokenizer import END_ID, encode

_EPSILON = 1e-8
PROGRESS_EVERY = 10


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one torch thread: sums are then formed in one order on every machine of a kind."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def initial_parameters(recipe: Recipe) -> Tensor:
    """Normal matrices and unit norms, as one flat float32 buffer."""
    generator = torch.Generator().manual_seed(recipe.seed)
    std = recipe.architecture.initial_std
    parts = [
        torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * std
        for shape in parameter_shapes(recipe.architecture).values()
    ]
    return torch.cat([part.reshape(-1) for part in parts])


@dataclass
class TrainingState:
    """What a step changes: parameters and AdamW moments (float32, flat) and the number of finished steps."""

    parameters: Tensor
    first: Tensor
    second: Tensor
    step: int = 0

    @classmethod
    def start(cls, parameters: Tensor) -> TrainingState:
        """State before the first step."""
        return cls(parameters.clone(), torch.zeros_like(parameters), torch.zeros_like(parameters))


class Exchange(Protocol):
    """Gives every participant the gradient parts of all of them, in the order of their shards."""

    def __call__(self, own: Tensor) -> list[Tensor]:
        """Hand in the own part and receive all parts."""


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then constant or a cosine to zero."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    if not recipe.cosine:
        return recipe.rate
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * 0.5 * (1.0 + math.cos(math.pi * done))


class _Gradients:
    """Gradient of one shard's summed loss, with the sum of the token weights in the last place."""

    def __init__(self, recipe: Recipe, parameters: Tensor) -> None:
        self.recipe = recipe
        self.buffer = torch.zeros(parameters.numel() + 1)
        self.engine = Engine(parameters, recipe.architecture)

    def of_shard(self, step: int, shard: int) -> Tensor:
        """Return the buffer (P + 1,) filled for `shard` of `step`; it is reused by the next call."""
        recipe = self.recipe
        rng = seeded(recipe.seed, recipe.checkpoint, step, shard)
        items = draw_batch(
            recipe.batch // recipe.shards,
            rng,
            domain_weights=recipe.domain_weights,
            skill_weights=recipe.skill_weights,
        )
        prompts = [encode(prompt) for prompt, _ in items]
        answers = [encode(answer) for _, answer in items]
        sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        batch = pack(sequences, heads=recipe.architecture.heads)
        targets: list[int] = []
        token_weights: list[float] = []
        for i in batch.order:
            targets += [*sequences[i][1:], END_ID]
            token_weights += [recipe.prompt_weight] * (len(prompts[i]) - 1) + [1.0] * (len(answers[i]) + 1)
        weight = torch.tensor(token_weights)
        self.engine.gradient(batch, torch.tensor(targets), weight, self.buffer[:-1])
        self.buffer[-1] = weight.sum()
        return self.buffer


def _update(state: TrainingState, summed: Tensor, recipe: Recipe) -> None:
    """One AdamW step on the trained slice (all of it, or all but embedding and head); moments in float32."""
    first_trained = embedding_parameters(recipe.architecture) if recipe.frozen else 0
    gradient = summed[first_trained:-1] / summed[-1]
    norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
    gradient *= min(1.0, recipe.clip / (norm + 1e-6))
    rate = learning_rate(recipe, state.step)
    beta1, beta2 = recipe.betas
    count = state.step + 1
    parameters, first, second = (t[first_trained:] for t in (state.parameters, state.first, state.second))
    first.lerp_(gradient, 1.0 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
    denominator = (second / (1.0 - beta2**count)).sqrt_().add_(_EPSILON)
    parameters.mul_(1.0 - rate * recipe.decay)
    parameters.addcdiv_(first, denominator, value=-rate / (1.0 - beta1**count))
    state.step = count


def train(
    recipe: Recipe,
    state: TrainingState,
    *,
    progress: Callable[[int], None] | None = None,
    shard: int | None = None,
    exchange: Exchange | None = None,
) -> None:
    """Advance `state` to the recipe's last step.

    Parameters
    ----------
    progress
        Called with the number of finished steps, every few steps and at the end.
    shard, exchange
        This participant's shard and how it meets the others; without them all shards are computed here, in order.
    """
    assert state.parameters.numel() == parameter_count(recipe.architecture)
    with one_thread(), torch.inference_mode():
        gradients = _Gradients(recipe, state.parameters)
        while state.step < recipe.steps:
            if exchange is not None and shard is not None:
                parts = exchange(gradients.of_shard(state.step, shard))
            else:
                parts = [gradients.of_shard(state.step, number).clone() for number in range(recipe.shards)]
            summed = parts[0].clone()
            for part in parts[1:]:
                summed += part
            _update(state, summed, recipe)
            if progress is not None and (state.step % PROGRESS_EVERY == 0 or state.step == recipe.steps):
                progress(state.step)
