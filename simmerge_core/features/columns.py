"""The features of an ordered pair on a task (App. B.4): one declaration for computation, schema and ablation."""

from __future__ import annotations

import polars as pl

from simmerge_core.tables.schema import Column

FEATURE_VERSION = 1

STATISTICS = ("mean", "median", "q25", "q75", "q90")
MODULES = ("attention", "mlp", "norm", "embedding", "head")


def _f(
    name: str, group: str, unit: str, description: str, low: float | None = None, high: float | None = None
) -> Column:
    return Column(name, pl.Float64, description, unit=unit, group=group, low=low, high=high)


def _summaries(prefix: str, group: str, unit: str, what: str, low: float | None, high: float | None) -> list[Column]:
    return [_f(f"{prefix}_{s}", group, unit, f"{s} {what}", low, high) for s in STATISTICS]


_EPS = 1e-9  # rounding room at the ends of cosines

# Quantiles interpolate linearly between order statistics. Norms are raised to 1e-6 of the largest of a's, b's and the
# base's before a ratio or logarithm; a cosine with one zero vector is 0, of two zero vectors 1: no value is ever NaN.


def _over(module: str) -> str:
    stand_in = "the embedding where the head is tied to it" if module == "head" else "the whole model where it has none"
    return f"over all {module} parameters ({stand_in})"


_COLUMNS: list[Column] = [
    # Functional (App. B.2)
    *_summaries("kl_ab", "kl", "nat", "over prompts of the position-averaged KL(a || b)", 0.0, None),
    *_summaries("kl_ba", "kl", "nat", "over prompts of the position-averaged KL(b || a)", 0.0, None),
    *_summaries(
        "activation_cosine",
        "activation",
        "cosine",
        "over layers of the prompt-averaged cosine of post-residual hidden states",
        -1 - _EPS,
        1 + _EPS,
    ),
    *_summaries(
        "attention_cosine",
        "attention",
        "cosine",
        "over layers and heads of the prompt-averaged cosine of attention patterns",
        -1 - _EPS,
        1 + _EPS,
    ),
    # Structural (App. B.3), global
    _f("weight_cosine", "weight", "cosine", "cosine of the flattened parameter vectors", -1 - _EPS, 1 + _EPS),
    _f("weight_l2", "weight", "1", "Euclidean distance of the parameter vectors", 0.0),
    _f("weight_norm_a", "weight", "1", "Euclidean norm of a's parameters", 0.0),
    _f("weight_norm_b", "weight", "1", "Euclidean norm of b's parameters", 0.0),
    # Scale-free forms, so that a selector transfers to another model size (§4.4)
    _f("weight_l2_relative", "weight", "ratio", "Euclidean distance over the geometric mean of both norms", 0.0),
    _f("weight_log_norm_ratio", "weight", "log ratio", "log of a's norm over b's norm"),
    _f("weight_log_norm_a_base", "weight", "log ratio", "log of a's norm over the base's norm"),
    _f("weight_log_norm_b_base", "weight", "log ratio", "log of b's norm over the base's norm"),
    *_summaries(
        "layer_weight_cosine",
        "weight",
        "cosine",
        "over transformer blocks of the weight cosine within a block",
        -1 - _EPS,
        1 + _EPS,
    ),
    *_summaries(
        "layer_weight_l2_relative",
        "weight",
        "ratio",
        "over transformer blocks of the relative weight distance within a block",
        0.0,
        None,
    ),
    *_summaries(
        "layer_weight_log_norm_ratio",
        "weight",
        "log ratio",
        "over transformer blocks of log(norm a / norm b) within a block",
        None,
        None,
    ),
    # Per module kind (beyond the paper's defaults)
    *[
        _f(
            f"{m}_weight_cosine",
            "weight_module",
            "cosine",
            f"weight cosine {_over(m)}",
            -1 - _EPS,
            1 + _EPS,
        )
        for m in MODULES
    ],
    *[
        _f(
            f"{m}_weight_l2_relative",
            "weight_module",
            "ratio",
            f"relative weight distance {_over(m)}",
            0.0,
        )
        for m in MODULES
    ],
    *[
        _f(f"{m}_weight_log_norm_ratio", "weight_module", "log ratio", f"log(norm a / norm b) {_over(m)}")
        for m in MODULES
    ],
    *[_f(f"{m}_log_norm_a_base", "weight_module", "log ratio", f"log(norm a / norm base) {_over(m)}") for m in MODULES],
    *[_f(f"{m}_log_norm_b_base", "weight_module", "log ratio", f"log(norm b / norm base) {_over(m)}") for m in MODULES],
    # Task-vector geometry (a - base, b - base)
    _f(
        "task_vector_cosine",
        "task_vector",
        "cosine",
        "cosine of the task vectors a - base and b - base",
        -1 - _EPS,
        1 + _EPS,
    ),
    _f("task_vector_log_norm_ratio", "task_vector", "log ratio", "log of a's task-vector norm over b's"),
    _f("task_vector_relative_norm_a", "task_vector", "ratio", "norm of a - base over the norm of the base", 0.0),
    _f("task_vector_relative_norm_b", "task_vector", "ratio", "norm of b - base over the norm of the base", 0.0),
    _f(
        "task_vector_sign_agreement",
        "task_vector",
        "fraction",
        "share of coordinates where both task vectors have the same sign",
        0.0,
        1.0,
    ),
    _f(
        "weight_sign_conflict",
        "task_vector",
        "fraction",
        "share of coordinates where the raw weights of a and b have opposite signs or one is zero",
        0.0,
        1.0,
    ),
    *[
        _f(
            f"{m}_task_vector_cosine",
            "task_vector",
            "cosine",
            f"task-vector cosine {_over(m)}",
            -1 - _EPS,
            1 + _EPS,
        )
        for m in MODULES
    ],
    # Label-free self signals on the task's probes
    _f("probe_nll_a", "self", "nat", "a's mean negative log-likelihood of the probe prompts' own tokens", 0.0),
    _f("probe_nll_b", "self", "nat", "b's mean negative log-likelihood of the probe prompts' own tokens", 0.0),
    _f("probe_entropy_a", "self", "nat", "a's mean predictive entropy on the probes", 0.0),
    _f("probe_entropy_b", "self", "nat", "b's mean predictive entropy on the probes", 0.0),
    _f(
        "last_entropy_a",
        "self",
        "nat",
        "a's mean predictive entropy at the last prompt position, where the answer starts",
        0.0,
    ),
    _f(
        "last_entropy_b",
        "self",
        "nat",
        "b's mean predictive entropy at the last prompt position, where the answer starts",
        0.0,
    ),
]

FEATURES: tuple[Column, ...] = tuple(_COLUMNS)
"""Every feature column, in file order."""

FEATURE_GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(c.name for c in FEATURES if c.group == group)
    for group in dict.fromkeys(c.group for c in FEATURES)
    if group
}
"""Feature names by ablation group."""

PAPER_GROUPS = ("kl", "activation", "attention", "weight")
"""The groups that the paper's App. B describes."""
