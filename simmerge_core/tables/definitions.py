"""The data contract: every table with its partition keys and columns (ARCHITECTURE.md, "Data contract")."""

from __future__ import annotations

import polars as pl

from simmerge_core.features.columns import FEATURES
from simmerge_core.tables.schema import Column, Table

_S, _F, _I = pl.String, pl.Float64, pl.Int64

_BENCHMARK = (
    Column("benchmark", _S, "name of the lm-eval task"),
    Column("metric", _S, "exact metric key, `name,filter`, or `probability`"),
    Column("item_set", _S, "which disjoint part of the items was scored: A, B, …"),
    Column("seed", _I, "seed of the evaluation"),
    Column("utility", _F, "score of the model on the items", unit="metric"),
    Column("stderr", _F, "standard error over items", unit="metric", low=0.0, nullable=True),
    Column("n", _I, "items scored", unit="items", low=1),
    Column("evaluation_key", _S, "content hash of recipe, task definition with data, and settings"),
)

CHECKPOINTS = Table(
    "checkpoints",
    ("checkpoint",),
    "the manifest of one checkpoint",
    (
        Column("domain", _S, "task it was tuned for; `base` for the base"),
        Column("base", _S, "id of the base it shares with the catalog"),
        Column("fingerprint", _S, "SHA-256 of its tensors and architecture"),
        Column("path", _S, "folder it was read from"),
        Column("architecture", _S, "class named in config.json"),
        Column("dtype", _S, "storage dtype of most parameters"),
        Column("parameters", _I, "number of parameters", unit="parameters", low=1),
        Column("layers", _I, "transformer blocks", low=1),
        Column("width", _I, "hidden size", low=1),
        Column("vocabulary", _I, "rows of the embedding", low=1),
        Column("tensors", _I, "stored tensors", low=1),
        Column("bytes", _I, "bytes of all tensors", unit="byte", low=1),
    ),
)

WEIGHT_GRAM = Table(
    "weight_gram",
    ("checkpoint",),
    "one tensor of one pair (checkpoint, other); other is a checkpoint it owns a pair with, itself, or the base",
    (
        Column("other", _S, "the second checkpoint of the inner product"),
        Column("tensor", _S, "tensor name"),
        Column("layer", pl.Int32, "transformer block, -1 outside the blocks"),
        Column("module", _S, "attention, mlp, norm, embedding or head"),
        Column("size", _I, "coordinates", unit="parameters", low=0),
        Column(
            "dot",
            _F,
            "inner product, accumulated in float64, of task vectors (weights minus base); the base stands for itself, "
            "so that other=base gives <task vector, base> and the base's own row <base, base>",
        ),
        Column(
            "sign_agreement",
            _I,
            "coordinates where both task vectors have the same non-zero sign",
            unit="parameters",
            low=0,
        ),
        Column(
            "sign_conflict", _I, "coordinates where the raw weights' product is not positive", unit="parameters", low=0
        ),
        Column("checkpoint_fingerprint", _S, "content of the checkpoint that was read"),
        Column("other_fingerprint", _S, "content of the other that was read"),
    ),
    key=("other", "tensor"),
)

FUNCTIONAL_SIMILARITY = Table(
    "functional_similarity",
    ("checkpoint", "task"),
    "one metric of one pair at one layer and head on the task's probes",
    (
        Column("a", _S, "first checkpoint"),
        Column("b", _S, "second checkpoint; equal to a for self signals"),
        Column(
            "metric",
            _S,
            "kl (KL(a || b)), activation_cosine, attention_cosine; self: probe_nll, probe_entropy, last_entropy",
        ),
        Column("layer", pl.Int32, "transformer block, -1 where the metric has none"),
        Column("head", pl.Int32, "attention head, -1 where the metric has none"),
        Column("mean", _F, "mean over prompts"),
        Column("median", _F, "median over prompts"),
        Column("q25", _F, "25th percentile over prompts"),
        Column("q75", _F, "75th percentile over prompts"),
        Column("q90", _F, "90th percentile over prompts"),
        Column("prompts", _I, "prompts compared", unit="prompts", low=1),
        Column("a_fingerprint", _S, "content of a"),
        Column("b_fingerprint", _S, "content of b"),
    ),
    key=("a", "b", "metric", "layer", "head"),
)

PAIRWISE_FEATURES = Table(
    "pairwise_features",
    ("checkpoint", "task"),
    "one ordered pair (a, b) on the task, with every feature of App. B.4; the partition's checkpoint owns the pair",
    (
        Column("a", _S, "first checkpoint"),
        Column("b", _S, "second checkpoint"),
        Column("a_domain", _S, "domain of a"),
        Column("b_domain", _S, "domain of b"),
        Column("a_fingerprint", _S, "content of a"),
        Column("b_fingerprint", _S, "content of b"),
        Column("probe_key", _S, "content hash of the probe set and its settings"),
        Column("feature_version", _I, "version of the feature definitions", low=1),
        *FEATURES,
    ),
    key=("a", "b"),
)

STANDALONE_SCORES = Table(
    "standalone_scores",
    ("checkpoint", "task"),
    "U(m, t) of one unmerged model on one benchmark, metric, item set and seed",
    (Column("fingerprint", _S, "content of the checkpoint"), *_BENCHMARK),
    key=("benchmark", "metric", "item_set", "seed"),
)

MERGE_LABELS = Table(
    "merge_labels",
    ("checkpoint", "task"),
    "the utility of one merge (pair and action) on one benchmark, metric, item set and seed of the partition's task",
    (
        Column("a", _S, "first checkpoint"),
        Column("b", _S, "second checkpoint"),
        Column("kind", _S, "expert_auxiliary (one of both has the task as domain), auxiliary_auxiliary, expert_expert"),
        Column("action", _S, "operator@alpha[,name=value]"),
        Column("operator", _S, "operator name"),
        Column("alpha", _F, "weight of b", low=0.0, high=1.0),
        Column("split", _S, "train, validation or test: a stable hash of both ids"),
        Column("a_fingerprint", _S, "content of a"),
        Column("b_fingerprint", _S, "content of b"),
        Column("recipe_key", _S, "content hash of the merge recipe"),
        *_BENCHMARK,
    ),
    key=("a", "b", "action", "benchmark", "metric", "item_set", "seed"),
)

PLAN_LABELS = Table(
    "plan_labels",
    ("task",),
    "the utility of one executed k-way plan, over the designed multi-way configurations of the task",
    (
        Column("configuration", _S, "the set of checkpoints, sorted, joined by +"),
        Column("k", _I, "checkpoints merged", low=2),
        Column("order", pl.List(pl.String), "checkpoints in merge order"),
        Column("actions", pl.List(pl.String), "one action per step"),
        Column("recipe_key", _S, "content hash of the merge recipe"),
        *_BENCHMARK,
    ),
)

MERGE_PLANS = Table(
    "merge_plans",
    ("merge_request",),
    "one ranked plan of a merge request",
    (
        Column("rank", _I, "1 is best", low=1),
        Column("task", _S, "target task, or several joined by +"),
        Column("k", _I, "checkpoints merged", low=2),
        Column("order", pl.List(pl.String), "checkpoints in merge order"),
        Column("actions", pl.List(pl.String), "one action per step"),
        Column("predicted_utility", _F, "predicted utility of the merged model", unit="metric"),
        Column("uncertainty", _F, "standard deviation over the ensemble", unit="metric", low=0.0),
        Column("low", _F, "lower end of the calibrated interval of the utility", unit="metric", nullable=True),
        Column(
            "high", _F, "its upper end; all five are null for a model without calibration", unit="metric", nullable=True
        ),
        Column(
            "difference_low",
            _F,
            "lower end of the interval of the first plan's utility minus this one's",
            unit="metric",
            nullable=True,
        ),
        Column("difference_high", _F, "its upper end", unit="metric", nullable=True),
        Column("distinguishable", pl.Boolean, "whether that interval excludes zero", nullable=True),
        Column("step_utilities", pl.List(pl.Float64), "predicted utility after each step", unit="metric"),
        Column("step_uncertainties", pl.List(pl.Float64), "standard deviation per step", unit="metric"),
        Column("search", _S, "exhaustive or beam"),
        Column("selector_key", _S, "content hash of the selector that ranked"),
    ),
    key=("rank",),
)

MERGE_OUTCOMES = Table(
    "merge_outcomes",
    ("merge_request",),
    "the utility of one model of a merge request: the executed plan, each baseline plan, each parent and the base",
    (
        Column(
            "role",
            _S,
            "simmerge, step (the same after an earlier step), expert_last_best_fixed, random_order, parent, base",
        ),
        Column("model", _S, "the plan, or the checkpoint id"),
        Column("task", _S, "task scored"),
        Column("predicted_utility", _F, "prediction for the plan, where there is one", unit="metric", nullable=True),
        *_BENCHMARK,
    ),
)

BANDIT_ROUNDS = Table(
    "bandit_rounds",
    ("merge_request",),
    "one step of a merge request that a bandit decided: what was drawn, how likely it was, and what it brought",
    (
        Column("bandit", _S, "name of the bandit, `<action set>-<policy>`"),
        Column("round_id", _S, "`<merge request>/<step>`"),
        Column("step", _I, "merge step of the plan, from 1", low=1),
        Column("task", _S, "target task, or several joined by +"),
        Column("merged", pl.List(pl.String), "checkpoints merged so far, then the one that is added"),
        Column("action", _S, "action that was applied, as the plan orders its checkpoints"),
        Column("arm", _S, "the same as the bandit sees it: the side with the task's expert first"),
        Column("context_hash", _S, "content hash of the context z"),
        Column("source", _S, "key of the encoder that made the context"),
        Column("draw_seed", _S, "key of the random numbers of the draw"),
        Column("propensity", _F, "probability with which the policy chose this arm here", low=0.0, high=1.0),
        Column("reward", _F, "utility of the merge after this step on the target", unit="metric"),
        Column("evaluation_key", _S, "content hash of the evaluation; several tasks joined by +"),
        Column("chosen_at", _I, "number of the decision in the bandit's log", low=0),
        Column("learned_at", _I, "number of the update in the bandit's log", low=0),
        Column("state_key", _S, "content hash of the posterior after the update"),
    ),
    key=("round_id",),
)

ACTIVE_LABELS = Table(
    "active_labels",
    ("day",),
    "the utility of one merge that active labelling chose, on one benchmark, metric, item set and seed",
    (Column("task", _S, "task scored"), *MERGE_LABELS.columns),
    key=("task", *MERGE_LABELS.key),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        CHECKPOINTS,
        WEIGHT_GRAM,
        FUNCTIONAL_SIMILARITY,
        PAIRWISE_FEATURES,
        STANDALONE_SCORES,
        MERGE_LABELS,
        PLAN_LABELS,
        MERGE_PLANS,
        MERGE_OUTCOMES,
        BANDIT_ROUNDS,
        ACTIVE_LABELS,
    )
}
"""Every Parquet table by name."""
