"""What methods, action sets and variants are called in the figures."""

from __future__ import annotations

from simmerge_core.analysis.figures.style import INK, colour, label

METHODS = {
    "mlp": "The paper's MLP",
    "nearest_neighbour": "Nearest neighbours",
    "norm_ratio": "Norm-ratio rule",
    "adapted": "SimMerge, standardised here",
    "own_selector": "Selector trained here",
    "best_fixed_carried": "Best fixed, carried over",
    "without_task_code": "SimMerge, no task code",
    "random": "Random action",
    "parent_expert": "Expert alone",
    "parent_auxiliary": "Auxiliary alone",
}
SETS = {
    "paper": "Paper's actions",
    "extended": "Extended actions",
    "selected": "Selected actions",
    "wide": "Wide actions",
}
TARGETS = {"expert_task": "expert's task", "both_tasks": "both tasks"}
GROUPS = {
    "kl": "KL",
    "activation": "activations",
    "attention": "attention",
    "weight": "weights",
    "weight_module": "weights per module",
    "task_vector": "task vectors",
    "self": "self signals",
}
"""Feature groups in the words of a sentence."""

OTHER = "#0072B2"
"""Whatever is neither the learned method nor a reference."""


def method(name: str) -> str:
    """A method's or action's name."""
    return METHODS.get(name) or label(name)


def mark_colour(name: str) -> str:
    """The learned method and the oracle stand out; all others are alike, since their rows are named."""
    return {"simmerge": colour("simmerge"), "oracle": INK}.get(name, OTHER)
